"""A report as a table of text and as bars."""

from html import escape

# Below these it is better to have less.
LESS_IS_BETTER = {"latency"}
BAR, GAP, WIDTH, LABELS = 14, 4, 860, 230


def table(report, reference):
    """One block per test; the ratio of the reference to itself is the noise of the machine."""
    machine, lines = report["machine"], []
    lines.append(f"{machine['cpu']}, {machine['cpus']} CPUs, Linux {machine['kernel']}, load {machine['load'][0]:.1f}")
    lines.append(f"{report['settings']['rounds']} rounds of {report['settings']['seconds']} s, "
                 f"{report['settings']['rules']} rules; ratio to {report['labels'][reference]}, 95 % interval\n")
    columns = f"{'':34}{'median':>12} {'unit':14}{'ratio':>7}  {'interval':15}{'CPU':>16}"
    for test in dict.fromkeys(row["test"] for row in report["rows"]):
        lines += [f"{test}{columns[len(test):]}", "─" * len(columns)]
        for row in (row for row in report["rows"] if row["test"] == test):
            lines.append(f"  {report['labels'][row['system']]:32}{row['median']:12,.2f} {row['unit']:14}{row['ratio']:7.3f}"
                         f"  {row['low']:.3f} - {row['high']:.3f}  {cpu(row):>16}")
        lines.append("")
    return "\n".join(lines).rstrip()


def cpu(row):
    if "cpuPerOperation_us" in row:
        return f"{row['cpuPerOperation_us']:.2f} µs each"
    return f"{row['cpuSecondsPerGigabyte']:.2f} s/GB" if "cpuSecondsPerGigabyte" in row else ""


def svg(report, reference):
    """Ratios to the reference as bars, with their intervals as lines."""
    parts, top = [], 40
    longest = max(row["high"] for row in report["rows"]) or 1
    scale = (WIDTH - LABELS - 70) / longest
    for test in dict.fromkeys(row["test"] for row in report["rows"]):
        less = ", less is better" if test in LESS_IS_BETTER else ""
        parts.append(f'<text x="8" y="{top}" font-weight="bold">{escape(test)}{less}</text>')
        top += 8
        for row in (row for row in report["rows"] if row["test"] == test):
            colour = "#2563eb" if row["system"].startswith("peerlane") else "#9ca3af"
            middle = top + BAR / 2
            parts.append(
                f'<text x="{LABELS - 8}" y="{top + BAR - 3}" text-anchor="end">'
                f'{escape(report["labels"][row["system"]])}</text>'
                f'<rect x="{LABELS}" y="{top}" width="{row["ratio"] * scale:.1f}" height="{BAR}" fill="{colour}"/>'
                f'<path d="M{LABELS + row["low"] * scale:.1f} {middle}H{LABELS + row["high"] * scale:.1f}" '
                f'stroke="#111827"/>'
                f'<text x="{LABELS + row["high"] * scale + 6:.1f}" y="{top + BAR - 3}">{row["ratio"]:.2f}</text>')
            top += BAR + GAP
        top += 24
    one = LABELS + scale
    rule = f'<path d="M{one:.1f} 24V{top - 20}" stroke="#dc2626" stroke-dasharray="3 3"/>'
    title = f'<text x="8" y="18">Ratio to {escape(report["labels"][reference])}, median of paired runs</text>'
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{top}" font-family="sans-serif" '
            f'font-size="12"><rect width="100%" height="100%" fill="white"/>{title}{rule}{"".join(parts)}</svg>\n')
