"""The config section `judge`: which model judges, how fast it is called, and what it may cost."""

from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from salsa.config.fields import Count, Fraction, NonNegative, Positive, Section

# Settings of how calls are made. Verdicts do not depend on them.
TRANSPORT = {
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
# OpenAI's Python client takes parameters that it does not know under this name.
EXTRA = "extra_body"
RESERVED_PARAMETERS = ("model", "messages", "temperature", "max_tokens", "max_completion_tokens", "stream", "n")


class Judge(Section):
    """An OpenAI-compatible endpoint. Kind `gold` is the mini world's judge, which the stage starts itself."""

    kind: Literal["gold", "endpoint"]
    model: str
    base_url: str | None = None
    api_key_env: str = "OPENAI_API_KEY"
    temperature: NonNegative | None = Field(0.0, description="null sends none, as reasoning models require")
    max_tokens: Count = Field(2048, description="Most tokens per reply, reasoning included")
    limit_parameter: Literal["max_tokens", "max_completion_tokens"] = Field(
        "max_tokens",
        description="The endpoint's name for it; reasoning models accept only max_completion_tokens",
    )
    parameters: dict[str, Any] = Field(
        default_factory=dict,
        description="Further parameters of each call, for example {reasoning_effort: low}, or for a model that you "
        "serve {chat_template_kwargs: {enable_thinking: false}}",
    )
    concurrency: Count = Field(8, description="Calls in flight per running stage")
    requests_per_minute: Positive | None = Field(
        None, description="Evenly spaced, shared by all processes that use the ledger. Default: no limit"
    )
    tokens_per_minute: Positive | None = Field(
        None, description="Prompt and reply tokens together; shared in the same way"
    )
    timeout_seconds: Positive = Field(120, description="Per attempt, from sending to the last byte of the reply")
    retries: int = Field(6, ge=0, description="Further attempts after the first, for errors that may pass")
    patience_seconds: Positive = Field(
        300, description="Longest wait between two attempts; an endpoint that asks for more ends the stage"
    )
    failed_share: Fraction = Field(
        0.01,
        description="Largest share of a stage's calls that may fail (no reply, or no text); one call is always "
        "allowed. Failed calls give no verdict, and tables count them. 0 allows none",
    )
    batch: bool = Field(
        False,
        description="Use the endpoint's batch API: cheaper, done within a day, without the limits per minute",
    )
    poll_seconds: Positive = Field(60, description="Time between two polls of a batch")
    input_price: NonNegative | None = Field(None, description="Per million prompt tokens, in any currency")
    output_price: NonNegative | None = Field(None, description="Per million reply tokens, in the same currency")
    budget: NonNegative | None = Field(
        None, description="Most that this judge's calls in the ledger may cost in total; needs both prices"
    )
    position_bias: NonNegative = Field(0.0, description="gold only: added to the first answer's gold reward")
    noise: NonNegative = Field(0.0, description="gold only: standard deviation of the noise on the difference")
    tie_margin: NonNegative = Field(0.02, description="gold only: smaller differences are ties")
    strong_margin: Positive = Field(0.3, description="gold only: larger differences are strong verdicts")

    def asked(self) -> dict[str, Any]:
        """The settings that judgments depend on, and the prices."""
        return self.model_dump(exclude=TRANSPORT)

    @model_validator(mode="after")
    def _has_endpoint(self) -> "Judge":
        if self.kind == "endpoint" and self.base_url is None:
            raise ValueError("kind endpoint needs base_url, for example https://api.openai.com/v1")
        if self.kind == "gold" and self.batch:
            raise ValueError("batch: the gold judge has no batch API")
        parts = urlsplit(self.base_url or "")
        if parts.username or parts.password or parts.query:
            raise ValueError("base_url must not hold a key or password, because it is recorded: use api_key_env")
        return self

    @model_validator(mode="after")
    def _parameters_are_not_reserved(self) -> "Judge":
        if reserved := sorted(set(self.parameters) & set(RESERVED_PARAMETERS)):
            raise ValueError(f"parameters: {reserved[0]} is not set here: use the judge section's own key")
        if EXTRA in self.parameters:
            raise ValueError(f"parameters: {EXTRA}: write its contents directly under parameters")
        return self

    @model_validator(mode="after")
    def _budget_has_prices(self) -> "Judge":
        if self.budget is not None and (self.input_price is None or self.output_price is None):
            raise ValueError("budget needs input_price and output_price to compute the cost of a call")
        return self
