#!/usr/bin/env python3
"""Trains the supernets of docs/results.md on nas-bench-macro and ranks its table by them; what is there is passed over.

    cargo build --release
    MONOPATH_DATA=DATA python3 benches/ranking.py OUT                  # the whole plan
    MONOPATH_DATA=DATA python3 benches/ranking.py OUT --only spos-10k-0 fair-10k-0
    python3 benches/ranking.py OUT --table                             # the table of what is there

DATA holds `cifar10/{train,test}.tar.gz` and `nas-bench-macro/nas-bench-macro_cifar10.json`. OUT/RUN is a run
directory, OUT/RUN/kept holds checkpoints that training passed, OUT/RUN/ranks/NAME.json one ranking with a line for
every network. A run that was broken off goes on where it stopped.
"""
import argparse, json, os, re, subprocess, sys, time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes/cifar10"

# A run: its recipe and what is changed of it.
RUNS = {}
for seed in (0, 1, 2):
    s = f"seed={seed}"
    RUNS[f"spos-10k-{seed}"] = ("spos-macro-10k.toml", [s])
    RUNS[f"fair-10k-{seed}"] = ("fairnas-macro-10k.toml", [s])

# A ranking: arguments of `monopath rank`.
ACCURACY = {
    "calibrated": ["--metric", "accuracy"],
    "by-batch": ["--metric", "accuracy", "--calibration-images", "0"],
}
RANKS = {
    **ACCURACY,
    "angle": ["--metric", "angle"],
    "synflow": ["--metric", "zero-cost", "--proxy", "synflow"],
    "gradient-norm": ["--metric", "zero-cost", "--proxy", "gradient-norm"],
    "jacobian-covariance": ["--metric", "zero-cost", "--proxy", "jacobian-covariance"],
}


def keep(run):
    """Links what lies in the run's checkpoints, so that the run's own clearing leaves it."""
    (run / "kept").mkdir(parents=True, exist_ok=True)
    for file in (run / "checkpoints").glob("supernet-*.safetensors"):
        try:
            os.link(file, run / "kept" / file.name)
        except (FileExistsError, FileNotFoundError):
            pass


def train(monopath, run, recipe, sets, data, threads):
    if (run / "supernet.safetensors").exists():
        return
    paths = [f"data.{part}.path={data}/cifar10/{part}.tar.gz" for part in ("train", "test")]
    args = [monopath, "train-supernet", RECIPES / recipe, "--out", run, "--resume", "--threads", str(threads)]
    for item in sets + paths:
        args += ["--set", item]
    child = subprocess.Popen([str(a) for a in args])
    while child.poll() is None:
        keep(run)
        time.sleep(5)
    if child.returncode:
        sys.exit(f"{run.name}: training ended with {child.returncode}")


def rank(monopath, run, name, args, table, networks, threads):
    file = run / "ranks" / f"{name}.json"
    if file.exists():
        return
    file.parent.mkdir(exist_ok=True)
    command = [monopath, "rank", "--from", run, "--table", table, "--networks", networks, "--threads", threads]
    out = subprocess.run([str(a) for a in command + args + ["--json"]], stdout=subprocess.PIPE, text=True)
    if out.returncode:
        sys.exit(f"{run.name}: {name} ended with {out.returncode}")
    ranking = json.loads(out.stdout)
    if "--weights" not in args:
        kept = json.loads((run / "rank.json").read_text())
        ranking = next(r for r in kept if r["metric"] == ranking["metric"])
    part = file.with_suffix(".part")
    part.write_text(json.dumps(ranking))
    part.rename(file)
    print(f"{run.name} {name}: tau-b {ranking['tau_b']}", flush=True)


def table(out):
    print("| run | score | n | tau-b | 95 % | P@10 | P@50 | MACs | params | ceiling | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    show = lambda v, d=3: "none" if v is None else f"{v:.{d}f}"
    for file in sorted(out.glob("*/ranks/*.json")):
        r = json.loads(file.read_text())
        low, high = r["interval_95"] or (None, None)
        print(f"| {file.parent.parent.name} | {file.stem} | {r['n']} | {show(r['tau_b'])} | {show(low)} to {show(high)} "
              f"| {show(r['p_at_10'], 2)} | {show(r['p_at_50'], 2)} | {show(r['macs_tau_b'])} "
              f"| {show(r['params_tau_b'])} | {show(r['ceiling'])} | {show(r['seconds'], 0)} |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--monopath", type=Path, default=ROOT / "target/release/monopath")
    parser.add_argument("--only", nargs="+", choices=RUNS, help="these runs")
    parser.add_argument("--scores", nargs="+", choices=RANKS, default=["calibrated", "by-batch", "angle"])
    parser.add_argument("--networks", default="300")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--table", action="store_true", help="print what is there")
    args = parser.parse_args()
    if args.table:
        return table(args.out)
    data = Path(os.environ.get("MONOPATH_DATA") or sys.exit("MONOPATH_DATA is not set"))
    macro = data / "nas-bench-macro/nas-bench-macro_cifar10.json"
    for name in args.only or RUNS:
        run = args.out / name
        recipe, sets = RUNS[name]
        train(args.monopath, run, recipe, sets, data, args.threads)
        for score in args.scores:
            rank(args.monopath, run, score, RANKS[score], macro, args.networks, args.threads)
        for file in sorted((run / "kept").glob("supernet-*.safetensors")) if "angle" in args.scores else []:
            step = int(re.fullmatch(r"supernet-(\d+)-\w+", file.stem)[1])
            extra = ["--metric", "angle", "--weights", file]
            rank(args.monopath, run, f"angle-{step}", extra, macro, args.networks, args.threads)


if __name__ == "__main__":
    main()
