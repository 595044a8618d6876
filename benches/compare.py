#!/usr/bin/env python3
"""Times monopath beside PyTorch and onnxruntime over the same work, in alternation, and prints the table.

    cargo build --release
    python3 benches/compare.py --python VENV/bin/python            # everything, 5 pairs: about an hour and a half
    python3 benches/compare.py --python VENV/bin/python --rows step/cifar block --pairs 7
    python3 benches/compare.py --table benches/record/FILE.jsonl   # the table of a record, or of several, again

VENV holds torch, numpy, onnx and onnxruntime. Every pair is a line of the record; a run that was broken off
goes on where it stopped. One thread is compared by CPU time, two by wall time; what else ran on the machine
meanwhile is in every line (`others`, share of its cores), and a pair during which that was more than
`--others-below` is measured again, up to three times. Both sides use AVX2 unless `--isa native`; where the
other side is onnxruntime, which cannot be held to AVX2, both use what the machine has.
"""
import argparse, datetime, json, os, platform, re, statistics, subprocess, sys, time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
OURS = ROOT / "target/release/monopath"
PATHS = str(HERE / "peers/paths.json")
PEERS = HERE / "peers"

# What a good PyTorch user sets: glibc keeps its large blocks.
MALLOC = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": "17179869184", "MALLOC_TOP_PAD_": "268435456"}
AVX2 = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "MONOPATH_ISA": "avx2"}

BLOCKS = {  # channels, side, kernel, expansion, batch
    "A": (40, 28, 5, 6, 16), "B": (24, 56, 3, 6, 16), "C": (96, 14, 7, 6, 16), "D": (40, 16, 7, 4, 64),
    "E": (192, 7, 5, 6, 16), "F": (24, 32, 5, 4, 64), "G": (80, 8, 3, 6, 64),
}
STEPS = ["--steps", "6", "--warmup", "2"]


class Row:
    """Two commands over the same work, and the figure of each. Less is better unless `rate`."""

    def __init__(self, label, theirs, ours, keys, bar, aim, rate=False, native=False):
        self.label, self.theirs, self.ours, self.keys = label, theirs, ours, keys
        self.bar, self.aim, self.rate, self.native = bar, aim, rate, native

    def ratio(self, theirs, ours):
        a, b = pick(theirs, self.keys[0]), pick(ours, self.keys[1])
        return b / a if self.rate else a / b


def pick(value, dotted):
    for key in dotted.split("."):
        value = value[key]
    return float(value)


def torch(*args):
    return ["{python}", str(PEERS / "torch_supernet.py"), *args, "--json"]


def bench(*args):
    return [str(OURS), "bench", *args, "--json"]


def rows():
    """Every comparison by name; `@2` is the same with two threads."""
    table = {}
    for threads in (1, 2):
        t, at = ["--threads", str(threads)], "" if threads == 1 else "@2"

        def timed(one, two):
            key = one if threads == 1 else two
            return (key, key)

        for preset, bar, aim in (("cifar", 2.3, 3.0), ("imagenet224", 2.1, 2.7), ("imagenet96", 2.2, 3.0)):
            work = ["--preset", preset, *STEPS, *t]
            table[f"step/{preset}{at}"] = Row(
                f"training step, {preset}", torch("--mode", "train", *work), bench("step", "--paths", PATHS, *work),
                timed("cpu_ms.median_ms", "step_ms.median_ms"), bar, aim)
        bars = {"A": (2.4, 3.4), "B": (2.3, 3.4), "C": (2.1, 2.6), "D": (2.6, 3.6), "E": (1.5, 1.85),
                "F": (2.7, 4.0), "G": (1.6, 2.1)}
        for name, (ch, hw, kernel, expand, batch) in BLOCKS.items():
            work = ["--ch", str(ch), "--hw", str(hw), "--kernel", str(kernel), "--expand", str(expand),
                    "--batch", str(batch), "--steps", "15", "--warmup", "3", *t]
            table[f"block/{name}{at}"] = Row(
                f"block {name}, forward + backward", torch("--mode", "block", *work), bench("block", *work),
                timed("train_cpu_ms.median_ms", "train_fwd_bwd_ms.median_ms"), *bars[name])
            table[f"block-eval/{name}{at}"] = Row(
                f"block {name}, evaluation, onnxruntime",
                ["{python}", str(PEERS / "block_onnxruntime.py"), *work, "--json"], bench("block", *work),
                timed("eval_cpu_ms.median_ms", "eval_forward_ms.median_ms"), 0.9, 1.3, native=True)
        for mode, bar, aim, label in (("eval", 2.0, 2.5, "evaluation of a path"),
                                      ("recal", 1.7, 2.2, "batch-norm calibration")):
            work = ["--preset", "cifar", "--steps", "10", "--warmup", "2", *t]
            table[f"{mode}/cifar{at}"] = Row(
                f"{label}, cifar", torch("--mode", mode, *work), bench(mode, "--paths", PATHS, *work),
                timed("cpu_ms.median_ms", "step_ms.median_ms"), bar, aim)
        for batch, bar, aim in (("16", 1.3, 1.6), ("1", 1.0, 1.3)):
            work = ["--preset", "imagenet224", "--batch", batch, "--steps", "20" if batch == "16" else "60", *t]
            table[f"child/{batch}{at}"] = Row(
                f"fixed child, batch {batch}, onnxruntime",
                ["{python}", str(PEERS / "onnxruntime_fixed.py"), *work, "--json"], bench("fixed", *work),
                timed("cpu_ms.median_ms", "forward_ms.median_ms"), bar, aim, native=True)
        # SPOS's evolution, 21 rounds of 50, as its rounds come to share longer prefixes: every fifth round from the
        # first. Over a sixteenth of the images: a candidate of 2,048 + 5,000 costs sixteen times as much on both
        # sides (ours a little less, for filters are folded once), and the memory for sharing is that part of 2 GiB.
        rate = "candidates_per_cpu_hour" if threads == 1 else "candidates_per_hour"
        images = ["--recal-images", "128", "--val-images", "312", *t]
        evolution = ["--population", "50", "--rounds", "20", "--every", "5", "--memory-mib", "128"]
        table[f"search/cifar{at}"] = Row(
            "search, candidates per hour, cifar", torch("--mode", "search", "--candidates", "16", *images),
            bench("search", *evolution, *images), (rate, rate), 2.5, 3.5, rate=True)
    return table


def environment(native):
    return {**os.environ, **MALLOC, **({} if native else AVX2)}


def ticks():
    """CPU time of the whole machine that was not idle, in seconds."""
    with open("/proc/stat") as f:
        n = [int(x) for x in f.readline().split()[1:]]
    return (sum(n[:8]) - n[3] - n[4]) / os.sysconf("SC_CLK_TCK")


def run(command, args, native=True):
    """The JSON that a command prints, and the share of the machine's cores that others used meanwhile."""
    command = [part.format(python=args.python) if "{" in part else part for part in command]
    before, used, wall = ticks(), os.times(), time.monotonic()
    done = subprocess.run(command, env=environment(native), capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}\nended with {done.returncode}:\n{done.stderr[-2000:]}")
    now, wall = os.times(), time.monotonic() - wall
    own = now.children_user + now.children_system - used.children_user - used.children_system
    others = max(0.0, (ticks() - before - own) / (wall * os.cpu_count()))
    return json.loads(done.stdout[done.stdout.index("{"):]), round(others, 3)


def cpu_name():
    try:
        return re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text()).group(1)
    except (OSError, AttributeError):
        return platform.processor()


def about(args):
    commit = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return {"date": datetime.date.today().isoformat(), "commit": commit.stdout.strip(),
            "machine": f"{os.cpu_count()} x {cpu_name()}", "isa": args.isa}


def read(path):
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def measure(names, args):
    table, here = rows(), about(args)
    path = Path(args.record or HERE / "record" / f"{here['date']}-{here['commit']}-{args.isa}.jsonl")
    path.parent.mkdir(exist_ok=True)
    done = {(r["row"], r["pair"]) for r in read(path)}
    # Row by row within a pair: what drifts on the machine meets all rows alike.
    for pair in range(args.pairs):
        for name in names:
            if (name, pair) in done:
                continue
            row = table[name]
            native = row.native or args.isa == "native"
            for _ in range(3):
                theirs, others_a = run(row.theirs, args, native)
                ours, others_b = run(row.ours, args, native)
                others = max(others_a, others_b)
                if others <= args.others_below:
                    break
            ratio = row.ratio(theirs, ours)
            record = {"row": name, "pair": pair, "ratio": round(ratio, 3), "others": others, **here,
                      "theirs": theirs, "ours": ours}
            with open(path, "a") as f:
                f.write(json.dumps(record) + "\n")
            print(f"pair {pair + 1}/{args.pairs}  {name:<22} {ratio:6.2f}x   others {100 * record['others']:.0f} %",
                  file=sys.stderr, flush=True)
    return path


def spread(values, digits=2):
    return f"{statistics.median(values):.{digits}f} [{min(values):.{digits}f}-{max(values):.{digits}f}]"


def show(paths):
    """Records as Markdown: median of the pair ratios with extremes, medians of both sides, memory."""
    records, table = [record for path in paths for record in read(path)], rows()
    if not records:
        sys.exit(f"{', '.join(map(str, paths))}: no record")

    def all_of(key):
        return ", ".join(sorted({r[key] for r in records}))

    print(f"{all_of('date')}, {all_of('machine')}, commits {all_of('commit')}, isa {all_of('isa')}; "
          f"median of pair ratios [min-max]\n")
    print("| measure | threads | ratio | at least | aim | theirs | ours | pairs | others |\n| --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    memory = {}
    for name, row in table.items():
        mine = [r for r in records if r["row"] == name]
        if not mine:
            continue
        ratios = [r["ratio"] for r in mine]
        sides = [statistics.median(pick(r[side], key) for r in mine) for side, key in zip(("theirs", "ours"), row.keys)]
        mark = "" if statistics.median(ratios) >= row.bar else " (below)"
        print(f"| {row.label} | {2 if name.endswith('@2') else 1} | **{spread(ratios)}**{mark} | {row.bar} | {row.aim} "
              f"| {sides[0]:.1f} | {sides[1]:.1f} | {len(mine)} | {100 * statistics.median(r['others'] for r in mine):.0f} % |")
        if name.startswith("step/") and not name.endswith("@2"):
            memory[row.label] = [pick(r["ours"], "peak_rss_mib") / pick(r["theirs"], "peak_rss_mib") for r in mine]
    if memory:
        print("\n| peak memory (RSS), share of PyTorch's | share | at most | aim |\n| --- | --- | --- | --- |")
        for label, shares in memory.items():
            print(f"| {label} | {spread(shares)} | 0.33 | 0.25 |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=sys.executable, help="python with torch, numpy, onnx, onnxruntime")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--rows", nargs="*", default=[""], help="names or beginnings of names; all if left out")
    parser.add_argument("--threads", type=int, choices=(1, 2), help="only rows with so many threads")
    parser.add_argument("--others-below", type=float, default=0.1, metavar="SHARE",
                        help="measure a pair again if others used more of the machine [default: 0.1]")
    parser.add_argument("--isa", choices=("avx2", "native"), default="avx2")
    parser.add_argument("--record", help="file that pairs are added to [default: benches/record/DATE-COMMIT-ISA.jsonl]")
    parser.add_argument("--table", metavar="FILE", nargs="+", type=Path,
                        help="measure nothing; print the table of these records")
    parser.add_argument("--list", action="store_true", help="list the rows")
    args = parser.parse_args()
    if args.table:
        return show(args.table)
    names = [n for n in rows() if any(n.startswith(r) for r in args.rows)
             and (args.threads is None or n.endswith("@2") == (args.threads == 2))]
    if args.list or not names:
        return print("\n".join(rows()))
    if not OURS.exists():
        sys.exit(f"{OURS} is missing: run `cargo build --release` first")
    show([measure(names, args)])


if __name__ == "__main__":
    main()
