#!/usr/bin/env python3
"""How far what a search finds lies below the best network of a table, after 50, 100 and 200 evaluations.

    python3 benches/regret.py TABLE RUN [RUN ...]     # runs with a search.json or a rank.json (made with --from)

TABLE is NAS-Bench-Macro's JSON. For a search: of the first n candidates in their order the one that scored best
counts by its accuracy in the table. For a ranking: the same of n networks drawn from those that were ranked, the
mean over 2,000 draws with its standard deviation: this is random search with the supernet's scores. Beside it
stand random search by multiply-adds (or any other score that the run has ranked by), a network drawn blindly, and
the best of n by the table itself, which trains all n.
"""
import argparse, json, random, statistics
from pathlib import Path

SIZES = (50, 100, 200)
DRAWS = 2000


def show(values):
    mean = statistics.fmean(values)
    return f"{mean:.2f}" + (f" ± {statistics.pstdev(values):.2f}" if len(values) > 1 else "")


def line(name, cells):
    print(f"| {name} | " + " | ".join(cells) + " |")


def of_search(name, found, truth, best):
    scored = [(s["arch"], (s["score"]["top1"], s["score"]["top5"])) for s in found["scored"]]
    cells = []
    for n in SIZES:
        if len(scored) < n:
            cells.append("")
            continue
        # The first of equals, as the search takes it.
        arch = max(scored[:n], key=lambda s: s[1])[0]
        cells.append(f"{best - truth[arch]:.2f}")
    line(f"{name}: search", cells)


def of_ranking(name, ranking, best):
    points = ranking["points"]

    def pick(key):
        cells = []
        for n in SIZES:
            if len(points) < n:
                cells.append("")
                continue
            draws = random.Random(0)
            cells.append(show([best - max(draws.sample(points, n), key=key)["truth"] for _ in range(DRAWS)]))
        return cells

    line(f"{name}: random search by {ranking['metric']}", pick(lambda p: p["score"]))
    return pick


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table", type=Path)
    parser.add_argument("runs", type=Path, nargs="+")
    args = parser.parse_args()
    truth = {arch: row["mean_acc"] for arch, row in json.loads(args.table.read_text()).items()}
    best = max(truth.values())
    print(f"best of the table: {best:.3f} %; regrets in points")
    line("", [str(n) for n in SIZES])
    line("---", ["---"] * len(SIZES))
    for run in args.runs:
        search, rank = run / "search.json", run / "rank.json"
        if search.exists():
            of_search(run.name, json.loads(search.read_text()), truth, best)
        pick = None
        for ranking in json.loads(rank.read_text()) if rank.exists() else []:
            if len(ranking["points"]) >= SIZES[0]:
                pick = of_ranking(run.name, ranking, best)
        if pick:
            blind = [best - p["truth"] for p in ranking["points"]]
            line(f"{run.name}: drawn blindly", [show(blind)] * len(SIZES))
            line(f"{run.name}: best of n by the table", pick(lambda p: p["truth"]))


if __name__ == "__main__":
    main()
