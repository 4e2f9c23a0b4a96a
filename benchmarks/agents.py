"""What the runtime adds to a call: a whole step of an agent beside the bare function in the same kind of worker.

python benchmarks/agents.py
"""

import argparse

from paired import report, speed_up

from hf_zoo.agents.decisions import Finish, ToolCall
from hf_zoo.agents.executor import Executor
from hf_zoo.agents.monitor import Monitor
from hf_zoo.agents.policy import ScriptedPolicy
from hf_zoo.agents.runtime import AgentRuntime
from hf_zoo.agents.tools import Tool
from hf_zoo.data.tools import python_tools

CALLS = {
    "add": {"a": 2, "b": 3},
    "factorial": {"number": 20},
    "sort_numbers": {"numbers": list(range(2000, 0, -1))},
}


def rivals(executor, name, num_calls):
    """A run of so many steps, and as many calls of the worker alone, whose arguments nobody checks."""
    tool, arguments = Tool.from_function(python_tools()[name]), CALLS[name]
    decisions = [*[ToolCall(name, arguments)] * num_calls, Finish("")]
    executor.run(tool, arguments)
    (worker,) = executor._workers.values()

    def agent():
        AgentRuntime(ScriptedPolicy(decisions), [tool], executor, Monitor(num_calls + 1, num_calls)).run("task")

    def bare():
        for _ in range(num_calls):
            worker.call(tool.function, arguments, 10.0)

    return agent, bare


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--calls", type=int, default=200)
    args = parser.parse_args()
    rows = []
    with Executor() as executor:
        for name in CALLS:
            ratio, ours, _ = speed_up(*rivals(executor, name, args.calls), args.pairs)
            rows.append(
                {"tool": name, "cost against the bare call": 1 / ratio, "milliseconds a step": 1e3 * ours / args.calls}
            )
    report(
        "agents", rows, f"medians of {args.pairs} paired runs of {args.calls} calls; bare: the function in a worker"
    )


if __name__ == "__main__":
    main()
