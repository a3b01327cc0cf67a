from tests.salsa.launched import launch

__all__ = ["launch"]
