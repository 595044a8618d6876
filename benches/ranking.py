#!/usr/bin/env python3
"""Trains the supernets of docs/results.md on nas-bench-macro and ranks its table by them; what is there is passed over.

    cargo build --release
    MONOPATH_DATA=DATA python3 benches/ranking.py OUT                  # the whole plan
    MONOPATH_DATA=DATA python3 benches/ranking.py OUT --only spos-10k-0 fair-10k-0
    python3 benches/ranking.py OUT --record FILE.jsonl                 # a line for every ranking that is there
    python3 benches/ranking.py --table FILE.jsonl                      # the table of docs/results.md

DATA holds `cifar10/{train,test}.tar.gz` and `nas-bench-macro/nas-bench-macro_cifar10.json`. OUT/RUN is a run
directory, OUT/RUN/kept holds checkpoints that training passed, OUT/RUN/ranks/NAME.json one ranking with a line for
every network. What was broken off or killed goes on where it was, a ranking after the last score it had stored.
"""
import argparse, json, os, re, signal, subprocess, sys, time, tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RECIPES = ROOT / "recipes/cifar10"
SPOS, FAIR = "spos-macro-10k.toml", "fairnas-macro-10k.toml"

# The plan: recipes, and what is changed of them.
RUNS = {}
for seed in (0, 1, 2):
    s, all_images = f"seed={seed}", "data.subset.per-class=5000"
    RUNS[f"spos-10k-{seed}"] = (SPOS, [s])
    RUNS[f"fair-10k-{seed}"] = (FAIR, [s])
    RUNS[f"spos-45k-{seed}"] = (SPOS, [s, all_images])
    RUNS[f"fair-45k-{seed}"] = (FAIR, [s, all_images])
PLAN = [name for name in RUNS if "-10k-" in name]

# What was tried with two epochs (docs/results.md).
for name, sets in {
    "lr0.05-b64": ["lr=0.05", "batch=64"],
    "lr0.0125-b64": ["lr=0.0125", "batch=64"],
    "lr0.025-b32": ["lr=0.025", "batch=32"],
}.items():
    varied = [f"supernet.train.{item}" for item in ["epochs=2", *sets]]
    RUNS[f"try-2-{name}"] = (SPOS, ["seed=0", *varied])

# A ranking: arguments of `monopath rank`.
RANKS = {
    "calibrated": ["--metric", "accuracy"],
    "by-batch": ["--metric", "accuracy", "--calibration-images", "0"],
    "calibrated-500": ["--metric", "accuracy", "--calibration-images", "256", "--held-out-images", "500"],
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


def wait(command, each=lambda: None, **options):
    """Runs to the end, or ends it with this script. `each` is called every few seconds."""
    # In a group of its own: Ctrl-C reaches it once, from here.
    child = subprocess.Popen([str(a) for a in command], process_group=0, **options)
    try:
        while child.poll() is None:
            each()
            try:
                child.wait(5)
            except subprocess.TimeoutExpired:
                pass
    finally:
        if child.poll() is None:
            child.terminate()
            child.wait()
    return child


def train(args, run, recipe, sets, data):
    if (run / "supernet.safetensors").exists():
        return
    paths = [f"data.{part}.path={data}/cifar10/{part}.tar.gz" for part in ("train", "test")]
    command = [args.monopath, "train-supernet", RECIPES / recipe, "--out", run, "--resume", "--threads", args.threads]
    for item in sets + paths:
        command += ["--set", item]
    code = wait(command, lambda: keep(run)).returncode
    # A signal ends the program well, with a checkpoint.
    if code or not (run / "supernet.safetensors").exists():
        sys.exit(f"{run.name}: training ended with {code} before its last step")


def rank(args, run, name, how, table):
    file = run / "ranks" / f"{name}.json"
    if file.exists() and json.loads(file.read_text()).get("wanted") == args.networks:
        return
    file.parent.mkdir(exist_ok=True)
    command = [args.monopath, "rank", "--from", run, "--table", table, "--networks", args.networks]
    printed = file.with_suffix(".out")
    with open(printed, "w") as out:
        code = wait(command + how + ["--threads", args.threads, "--json"], stdout=out).returncode
    if code:
        sys.exit(f"{run.name}: {name} ended with {code}")
    ranking = json.loads(printed.read_text())
    if "--weights" not in how:
        kept = json.loads((run / "rank.json").read_text())
        ranking = next(r for r in kept if r["metric"] == ranking["metric"])
    part = file.with_suffix(".part")
    part.write_text(json.dumps({"wanted": args.networks, **ranking}))
    part.rename(file)
    printed.unlink()
    print(f"{run.name} {name}: tau-b {ranking['tau_b']}", flush=True)


def trained(run):
    """The settings of a run's training, and how it went."""
    recipe = tomllib.loads((run / "recipe.toml").read_text())
    train = recipe["supernet"]["train"]
    settings = {key: train.get(key, 0) for key in ("epochs", "batch", "lr", "warmup-steps")}
    settings["sampler"] = recipe["supernet"].get("sampler", {}).get("kind", "uniform")
    settings["per-class"] = recipe["data"]["subset"]["per-class"] - recipe["data"]["val-per-class"]
    epochs = {}
    for event in map(json.loads, (run / "events.jsonl").read_text().splitlines()):
        if event["event"] == "step":
            sums = epochs.setdefault(event["epoch"], [0, 0, 0])
            for i, value in enumerate((1, event["loss"], event["accuracy"])):
                sums[i] += value * event["images"]
    means = [(loss / images, right / images) for images, loss, right in epochs.values()]
    went = {"loss-first-epoch": means[0][0], "loss": means[-1][0], "accuracy": means[-1][1]} if means else {}
    return {**settings, **{key: round(value, 4) for key, value in went.items()}}


def record(out, file):
    lines = []
    for path in sorted(out.glob("*/ranks/*.json")):
        ranking = json.loads(path.read_text())
        scores = [point["score"] for point in ranking.pop("points", [])]
        ranking.pop("wanted", None)
        spread = {"scores": [min(scores), sum(scores) / len(scores), max(scores)]} if scores else {}
        run = path.parent.parent
        lines.append(json.dumps({"run": run.name, "score": path.stem, "train": trained(run), **ranking, **spread}))
    file.write_text("".join(line + "\n" for line in lines))


def table(file):
    show = lambda v, d=3: "none" if v is None else f"{v:.{d}f}"
    print("| run | score | n | tau-b | 95 % | P@10 | P@50 | MACs | params | ceiling | seconds |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    rankings = [json.loads(line) for line in file.read_text().splitlines()]
    for r in rankings:
        low, high = r["interval_95"] or (None, None)
        print(f"| {r['run']} | {r['score']} | {r['n']} | {show(r['tau_b'])} | {show(low)} to {show(high)} "
              f"| {show(r['p_at_10'], 2)} | {show(r['p_at_50'], 2)} | {show(r['macs_tau_b'])} "
              f"| {show(r['params_tau_b'])} | {show(r['ceiling'])} | {show(r['seconds'], 0)} |")
    print("\n| run | epochs | batch | lr | warm-up steps | loss, first epoch | loss, last | right, last |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for run, t in {r["run"]: r["train"] for r in rankings}.items():
        print(f"| {run} | {t['epochs']} | {t['batch']} | {t['lr']:g} | {t['warmup-steps']} "
              f"| {t['loss-first-epoch']:.2f} | {t['loss']:.2f} | {100 * t['accuracy']:.0f} % |")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, nargs="?")
    parser.add_argument("--monopath", type=Path, default=ROOT / "target/release/monopath")
    parser.add_argument("--only", nargs="+", choices=RUNS, default=PLAN, help="these runs")
    parser.add_argument("--scores", nargs="+", choices=RANKS, default=["calibrated", "by-batch", "angle"])
    parser.add_argument("--networks", default="300", help="how many of the table are ranked: a number, or all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, metavar="FILE", help="write what is there")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print a record")
    args = parser.parse_args()
    if args.table:
        return table(args.table)
    if not args.out:
        parser.error("OUT is missing")
    if args.record:
        return record(args.out, args.record)
    # As Ctrl-C: the program that runs is ended well, and what it did is stored.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    data = Path(os.environ.get("MONOPATH_DATA") or sys.exit("MONOPATH_DATA is not set"))
    macro = data / "nas-bench-macro/nas-bench-macro_cifar10.json"
    for name in args.only:
        run = args.out / name
        train(args, run, *RUNS[name], data)
        for score in args.scores:
            rank(args, run, score, RANKS[score], macro)
        for file in sorted((run / "kept").glob("supernet-*.safetensors")) if "angle" in args.scores else []:
            step = int(re.fullmatch(r"supernet-(\d+)-\w+", file.stem)[1])
            rank(args, run, f"angle-{step}", ["--metric", "angle", "--weights", file], macro)


if __name__ == "__main__":
    main()
