"""The config's judge section: whom to ask, how fast, and for how much."""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from salsa.config.fields import Count, Fraction, NonNegative, Positive, Section

# How calls are made. What they say does not depend on it.
HOW = {
    "api_key_env",
    "concurrency",
    "requests_per_minute",
    "tokens_per_minute",
    "timeout_seconds",
    "retries",
    "patience_seconds",
    "failed_share",
    "batch",
    "poll_seconds",
    "budget",
}
# OpenAI's Python client takes what a request holds beyond its own parameters under this name.
EXTRA = "extra_body"
OWN_PARAMETERS = ("model", "messages", "temperature", "max_tokens", "max_completion_tokens", "stream", "n")


class Judge(Section):
    """An OpenAI-compatible endpoint. Kind `gold` is the mini world's own, which the stage starts itself."""

    kind: Literal["gold", "endpoint"]
    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: NonNegative | None = Field(0.0, description="null sends none, which reasoning models ask for")
    max_tokens: Count = Field(2048, description="The most tokens of an answer, a reasoning model's thoughts included")
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="What the endpoint calls it; reasoning models know max_completion_tokens alone",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Further parameters of each call, for example {reasoning_effort: low}, or for a model of your own "
        "{chat_template_kwargs: {enable_thinking: false}}",
    )
    concurrency: Count = Field(8, description="Calls in flight, of each stage that runs")
    requests_per_minute: Positive | None = Field(
        None, description="Shared by all who use the ledger, spaced evenly. Default: no limit"
    )
    tokens_per_minute: Positive | None = Field(None, description="Asked and answered together; shared likewise")
    timeout_seconds: Positive = Field(120, description="Of one try of a call, from sending to the reply's last byte")
    retries: int = Field(6, ge=0, description="After the first try, where another may help")
    patience_seconds: Positive = Field(
        300, description="The longest wait between two tries; an endpoint that asks for more ends the stage"
    )
    failed_share: Fraction = Field(
        0.01,
        description="Largest share of a stage's calls that may stay without a reply or a text, one call at least: they "
        "are no verdicts, and tables count them. 0: none may",
    )
    batch: bool = Field(
        False,
        description="Ask by the endpoint's batch API: for less, within a day, without the limits a minute",
    )
    poll_seconds: Positive = Field(60, description="Between two looks at a batch")
    input_price: NonNegative | None = Field(None, description="Per million tokens asked, in any currency")
    output_price: NonNegative | None = Field(None, description="Per million tokens answered, in the same")
    budget: NonNegative | None = Field(
        None, description="The most that this judge's calls in the ledger may cost together, in the same; needs prices"
    )
    position_bias: NonNegative = Field(0.0, description="gold only: added to the first answer's gold reward")
    noise: NonNegative = Field(0.0, description="gold only: standard deviation of the noise on the difference")
    tie_margin: NonNegative = Field(0.02, description="gold only: smaller differences are ties")
    strong_margin: Positive = Field(0.3, description="gold only: larger differences are strong verdicts")

    def asked(self) -> dict[str, Any]:
        """Whom is asked and with what: the settings that judgments depend on, and their prices."""
        return self.model_dump(exclude=HOW)

    @model_validator(mode="after")
    def _has_endpoint(self) -> "Judge":
        if self.kind == "endpoint" and self.base_url is None:
            raise ValueError("kind endpoint needs base_url, for example https://api.openai.com/v1")
        if self.kind == "gold" and self.batch:
            raise ValueError("batch: the gold judge has no batch API")
        parts = urlsplit(self.base_url or "")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url must hold no key or password, it is written to records: use api_key_env")
        return self

    @model_validator(mode="after")
    def _parameters_are_further_ones(self) -> "Judge":
        if own := sorted(set(self.parameters) & set(OWN_PARAMETERS)):
            raise ValueError(f"parameters: {own[0]} is not set here: the judge section has keys of its own for it")
        if EXTRA in self.parameters:
            raise ValueError(f"parameters: {EXTRA}: write what it holds directly under parameters")
        return self

    @model_validator(mode="after")
    def _budget_has_prices(self) -> "Judge":
        if self.budget is not None and (self.input_price is None or self.output_price is None):
            raise ValueError("budget needs input_price and output_price: what a call costs follows from them")
        return self
