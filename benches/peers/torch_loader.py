#!/usr/bin/env python3
"""What a PyTorch user gets for `monopath bench loader`: ImageFolder, random resized crop, flip, tensor,
normalise, DataLoader with worker processes. CPU time is that of this process and of its workers.

  torch_loader.py FOLDER [--size 224] [--batch 64] [--workers 2] [--batches 40] [--rounds 5] [--json]
"""
import argparse, json, resource, statistics, time

import PIL, torch, torchvision
from torchvision import transforms as T


def cpu():
    return sum(u.ru_utime + u.ru_stime for u in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)))


def main():
    a = argparse.ArgumentParser()
    a.add_argument("folder")
    for name, value in dict(size=224, batch=64, workers=2, batches=40, rounds=5).items():
        a.add_argument("--" + name, type=int, default=value)
    a.add_argument("--json", action="store_true")
    a = a.parse_args()
    torch.set_num_threads(1)
    transform = T.Compose([
        T.RandomResizedCrop(a.size), T.RandomHorizontalFlip(), T.ToTensor(),
        T.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ])
    data = torchvision.datasets.ImageFolder(a.folder, transform)
    rates, used = [], []
    for round in range(a.rounds + 1):
        before = cpu()
        loader = iter(torch.utils.data.DataLoader(data, a.batch, shuffle=True, num_workers=a.workers, drop_last=True))
        next(loader)
        start, images = time.perf_counter(), 0
        for _ in range(a.batches):
            x, _ = next(loader)
            images += len(x)
        seconds = time.perf_counter() - start
        del loader  # joins the workers, whose CPU time then counts; it holds the first batch and the prefetched ones
        if round > 0:
            rates.append(images / seconds)
            used.append(1e6 * (cpu() - before) / (images + a.batch))
    result = dict(mode="loader", images_per_s=statistics.median(rates), cpu_us_per_image=statistics.median(used),
                  records=len(data), workers=a.workers, torch=torch.__version__, torchvision=torchvision.__version__,
                  pillow=PIL.__version__)
    print(json.dumps(result) if a.json else "\n".join(f"{k:<20} {v}" for k, v in result.items()))


if __name__ == "__main__":
    main()
