"""Train a policy with PPO on your own reward function, with the policy itself or a soup as the reference.

python examples/train_with_your_reward.py --policy checkpoints/mini/sft/llama-mini/1 --reference soup --out short
"""

import argparse

from salsa.alignment.library import train_ppo

PROMPTS = ["Ask Ada for a cup of tea.", "Name the colour of grass.", "List the days of the week.", "Say hello to Ben."]


def reward(prompts: list[str], responses: list[str]) -> list[float]:
    """Prefer short responses: 0 for 10 words or fewer, then -0.1 per word."""
    return [-0.1 * max(0, len(response.split()) - 10) for response in responses]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--policy", required=True)
    parser.add_argument("--reference", nargs="*")
    parser.add_argument("--steps", type=int, default=10)
    parser.add_argument("--out", required=True)
    arguments = parser.parse_args()
    run = train_ppo(
        arguments.policy,
        PROMPTS,
        reward,
        reference=arguments.reference or None,
        steps=arguments.steps,
        learning_rate=3e-4,
        value_learning_rate=1e-3,
        report=lambda metrics: print(f"step {metrics['step']}: reward {metrics['reward']:.3f}"),
    )
    print(run.respond(PROMPTS[:1])[0])
    run.save(arguments.out)


if __name__ == "__main__":
    main()
