#!/usr/bin/env python3
"""Compares peerlane with other routers on this machine: same topology, same policy, same traffic, interleaved runs.

Every round measures every system once, in an order that changes; a figure of a system is divided by that of the
reference in the same round, and the median of these ratios is what counts, with its 95 % interval (bootstrap). The
reference is measured twice per round, and the ratio of the two says how much of a difference is noise.
"""

import argparse
import contextlib
import json
import os
import platform
import random
import statistics
import subprocess
import sys
from pathlib import Path

import chart
import systems

TESTS = ["tcp-1", "tcp-1-reverse", "tcp-8", "tcp-8-reverse", "udp-22", "udp-512", "udp-1400", "latency", "connections"]
FIGURES = {"tcp": ("bitsPerSecond", "Gbit/s", 1e9), "udp": ("packetsPerSecond", "kpackets/s", 1e3),
           "latency": ("p50_us", "µs p50", 1), "connections": ("connectionsPerSecond", "connections/s", 1)}
PORT = 5201


def figure(test):
    return FIGURES[test.split("-")[0]]


def arguments():
    parser = argparse.ArgumentParser(prog="scripts/bench", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10, help="paired runs of everything [%(default)s]")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each run that count [%(default)s]")
    parser.add_argument("--warm-up", type=float, default=0.5, help="seconds before [%(default)s]")
    parser.add_argument("--rules", type=int, default=100, help="deny rules before the one that allows [%(default)s]")
    parser.add_argument("--test", action="append", choices=TESTS, help="only this test; may be repeated")
    parser.add_argument("--system", action="append", help="only this system (and the reference); may be repeated")
    parser.add_argument("--congestion", choices=("cubic", "reno", "bbr"), default="cubic",
                        help="TCP's congestion control; bbr paces by what it measured before [%(default)s]")
    parser.add_argument("--reference", default="nftables", help="what the others are divided by [%(default)s]")
    parser.add_argument("--spin", action="store_true", help="also peerlane with `up --spin`")
    parser.add_argument("--seed", type=int, default=1, help="of the order of the runs [%(default)s]")
    parser.add_argument("--join", type=Path, nargs="+", metavar="DIRECTORY",
                        help="measure nothing: make one report of those in these directories, one test or more each")
    parser.add_argument("--binary", type=Path, default=Path("target/release/peerlane"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, default=Path("target/bench"),
                        help="where report.json and report.svg go [%(default)s]")
    return parser.parse_args()


def available(options):
    """Name -> context of the system."""
    binary, rules = options.binary.resolve(), options.rules
    prefix = systems.numbered("plb")
    all_systems = {
        "peerlane": lambda: systems.peerlane(prefix, binary, rules),
        "peerlane-one-rule": lambda: systems.peerlane(prefix, binary, 1, name="peerlane-one-rule",
                                                      label="peerlane, 1 rule"),
        "peerlane-vnet-ports": lambda: systems.peerlane(prefix, binary, rules, name="peerlane-vnet-ports",
                                                        label="peerlane, VNet ports", ports="vnet"),
        "peerlane-plain": lambda: systems.peerlane(prefix, binary, rules, ["--io", "plain"], "peerlane-plain",
                                                   "peerlane --io plain"),
        "kernel": lambda: systems.kernel(prefix),
        "nftables": lambda: systems.kernel(prefix, rules, "nftables", "kernel router, nftables"),
        "ovs": lambda: systems.open_vswitch(prefix, rules),
        "direct": lambda: systems.direct(prefix),
    }
    if options.spin:
        all_systems["peerlane-spin"] = lambda: systems.peerlane(prefix, binary, rules, ["--spin"], "peerlane-spin",
                                                                "peerlane --spin")
    wanted = options.system or list(all_systems)
    unknown = [name for name in [*wanted, options.reference] if name not in all_systems]
    if unknown:
        sys.exit(f"scripts/bench: no system {', '.join(unknown)}; there are {', '.join(all_systems)}")
    return {name: make for name, make in all_systems.items() if name in wanted or name == options.reference}


def measure(system, test, options):
    """One run of one test."""
    end = [str(options.binary.resolve()), "bench-end", "--congestion", options.congestion]
    sink = subprocess.Popen([*system.at_b, *end, "sink", f"{systems.B}:{PORT}"], stdin=subprocess.PIPE,
                            stdout=subprocess.PIPE, text=True)
    try:
        if not sink.stdout.readline():
            raise RuntimeError(f"{system.name}: the receiver did not start")
        words = ["drive", f"{systems.B}:{PORT}", test, "--source", systems.A, "--seconds", options.seconds,
                 "--warm-up", options.warm_up]
        return json.loads(systems.run(*system.at_a, *end, *words))
    finally:
        sink.stdin.close()
        sink.wait()


def interval(ratios, seed):
    """The 95 % interval of the median, by 2000 resamples."""
    draw = random.Random(seed)
    medians = sorted(statistics.median(draw.choices(ratios, k=len(ratios))) for _ in range(2000))
    return medians[49], medians[1949]


def summary(runs, system, test, options):
    """A system's figure and, against the reference, its ratio."""
    name, unit, scale = figure(test)
    again = f"{options.reference} again"
    values = [run[name] for run in runs[system][test]]
    ratios = [value / run[name] for value, run in zip(values, runs[options.reference][test])]
    low, high = interval(ratios, options.seed)
    row = {"system": system, "test": test, "median": statistics.median(values) / scale, "unit": unit,
           "ratio": statistics.median(ratios), "low": low, "high": high, "noise": system == again}
    for key in ("cpuSecondsPerGigabyte", "cpuPerOperation_us", "p99_us", "sentPacketsPerSecond"):
        known = [run[key] for run in runs[system][test] if run.get(key) is not None]
        if known:
            row[key] = statistics.median(known)
    return row


def machine():
    def first(path, start):
        with contextlib.suppress(OSError):
            for line in Path(path).read_text(encoding="utf-8").splitlines():
                if line.startswith(start):
                    return line.split(":", 1)[1].strip()
        return "unknown"

    return {"cpu": first("/proc/cpuinfo", "model name"), "cpus": os.cpu_count(), "kernel": platform.release(),
            "memory": first("/proc/meminfo", "MemTotal"), "load": os.getloadavg()}


def joined(directories):
    """One report of several, of different tests."""
    parts = [json.loads((directory / "report.json").read_text(encoding="utf-8")) for directory in directories]
    whole = parts[0]
    for part in parts[1:]:
        differing = [key for key, value in part["settings"].items()
                     if value != whole["settings"][key] and key != "test"]
        twice = {row["test"] for row in part["rows"]} & {row["test"] for row in whole["rows"]}
        if differing or twice or part["machine"]["cpu"] != whole["machine"]["cpu"]:
            sys.exit(f"scripts/bench: not of one kind: {', '.join([*differing, *twice]) or 'the machines'}")
        whole["machine"]["load"] = max(whole["machine"]["load"], part["machine"]["load"])
        whole["labels"].update(part["labels"])
        whole["rows"] += part["rows"]
        for name, tests in part["runs"].items():
            whole["runs"].setdefault(name, {}).update(tests)
    return whole


def write(report, directory, reference):
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    (directory / "report.svg").write_text(chart.svg(report, reference), encoding="utf-8")
    print(chart.table(report, reference))
    print(f"\n{directory}/report.json and report.svg have every run and a chart.")


def main():
    options = arguments()
    if options.join:
        write(joined(options.join), options.directory, options.reference)
        return
    makers = available(options)
    tests = options.test or TESTS
    order = random.Random(options.seed)
    begun = machine()
    with contextlib.ExitStack() as stack:
        running = {name: stack.enter_context(make()) for name, make in makers.items()}
        again = f"{options.reference} again"
        running[again] = running[options.reference]
        runs = {name: {test: [] for test in tests} for name in running}
        total, done = options.rounds * len(tests) * len(running), 0
        for _ in range(options.rounds):
            for test in tests:
                names = list(running)
                order.shuffle(names)
                for name in names:
                    if sys.stderr.isatty():
                        print(f"\r\033[K{done} of {total}: {name}, {test}", end="", file=sys.stderr)
                    runs[name][test].append(measure(running[name], test, options))
                    done += 1
        if sys.stderr.isatty():
            print("\r\033[K", end="", file=sys.stderr)
        labels = {name: system.label for name, system in running.items()}
    labels[again] += " (again)"
    rows = [summary(runs, name, test, options) for test in tests for name in runs]
    settings = {key: str(value) for key, value in vars(options).items() if key not in ("binary", "directory", "join")}
    report = {"machine": begun, "settings": settings, "labels": labels, "rows": rows, "runs": runs}
    write(report, options.directory, options.reference)


if __name__ == "__main__":
    main()
