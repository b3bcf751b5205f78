"""A plan as tables: what a run takes, whether it fits, and what to change if not."""

from rich.console import Console, Group, RenderableType
from rich.table import Table

from xwam.train.plan import Plan, changes, plan
from xwam.train.runs import AutoencoderRun, ModelRun

GB = 1e9


def tell_plan(run: AutoencoderRun | ModelRun, gpus: int, gpu_gb: float, tflops: float) -> bool:
    """Plans the run and prints its tables; True if it fits."""
    if isinstance(run, AutoencoderRun):
        raise ValueError("a plan is made for a world action model; a small autoencoder trains on any machine")
    return show_plan(plan(run, gpus), gpu_gb, tflops)


def show_plan(planned: Plan, gpu_gb: float, tflops: float) -> bool:
    """Prints the plan for cards of so many GB that compute so many TFLOP/s; True if it fits them."""
    fits = planned.bytes <= gpu_gb * GB
    tables: list[RenderableType] = [_parameters(planned), _memory(planned, gpu_gb), _time(planned, tflops)]
    if not fits:
        tables.append(_changes(planned, gpu_gb))
    Console().print(Group(*tables))
    return fits


def _parameters(plan: Plan) -> Table:
    table = _table("parameters", "millions")
    for name, count in plan.parameters.items():
        table.add_row(name, f"{count / 1e6:,.1f}")
    table.add_row("trained", f"{plan.trained / 1e6:,.1f}", style="bold")
    return table


def _memory(plan: Plan, gpu_gb: float) -> Table:
    held = f"{plan.gpus} GPUs, {plan.shards} to a copy" if plan.gpus > 1 else "one GPU"
    table = _table(f"memory of each of {held}, {plan.samples} samples at once", "GB")
    for name, size in plan.device.items():
        table.add_row(name, f"{size / GB:,.2f}")
    fits = "fits" if plan.bytes <= gpu_gb * GB else "does not fit"
    table.add_row(f"together: {fits} {gpu_gb:g} GB", f"{plan.bytes / GB:,.2f}", style="bold")
    for name, size in plan.host.items():
        table.add_row(f"host, for each GPU: {name}", f"{size / GB:,.2f}", style="dim")
    return table


def _time(plan: Plan, tflops: float) -> Table:
    steps, seconds = plan.run.train.steps, plan.step_seconds(tflops * 1e12)
    hours = steps * seconds / 3600
    table = _table(f"at {tflops:g} TFLOP/s a GPU", "")
    for name, value in (
        ("PFLOP a step, with what is computed twice", _told(plan.flops / 1e15)),
        ("tokens a step", f"{plan.tokens:,}"),
        ("seconds a step", _told(seconds)),
        ("tokens a second", f"{plan.tokens / seconds:,.0f}"),
        (f"hours for {steps:,} steps", _told(hours)),
        ("GPU-hours", _told(hours * plan.gpus)),
    ):
        table.add_row(name, value)
    return table


def _told(value: float) -> str:
    """Three digits, whatever the size of the model."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _changes(plan: Plan, gpu_gb: float) -> Table:
    table = _table("what would take less", "GB", "fits")
    for options, other in changes(plan, gpu_gb * GB):
        table.add_row(options, f"{other.bytes / GB:,.2f}", "yes" if other.bytes <= gpu_gb * GB else "no")
    return table


def _table(name: str, *columns: str) -> Table:
    table = Table(name, title_justify="left", min_width=60)
    for column in columns:
        table.add_column(column, justify="right")
    return table
