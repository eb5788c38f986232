"""
A decade of attention
=====================

The systems that this guide runs, in the order in which they were published, drawn from :mod:`attn_guide.taxonomy`.
"""

from attn_guide import plot, taxonomy

events = [
    {"when": event.year, "text": event.name, "note": event.contribution, "open": not event.is_written}
    for event in taxonomy.EVENTS
]
first, last = taxonomy.EVENTS[0], taxonomy.EVENTS[-1]
written = sum(event.is_written for event in taxonomy.EVENTS)

fig = plot.figure(
    "home-timeline",
    title=f"From {first.name} to {last.name} in {last.year - first.year} years",
    caption=(
        f"{len(events)} systems by the year of their first public version. {written} of them run here today"
        + ("." if written == len(events) else "; a hollow mark stands for one that does not yet.")
    ),
    size=(4.9, 5.2),
)
plot.timeline(fig.subplots(), events)
plot.describe(
    fig,
    f"A timeline of {len(events)} systems. "
    + " ".join(f"{event.year}: {event.name}, {event.contribution}." for event in taxonomy.EVENTS),
)
