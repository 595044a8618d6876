//! A disk that is full: a small tmpfs of its own for each run.

use std::process::Command;

use crate::{Bench, built, fingerprint};

/// Runs on tmpfs file systems of `sizes` different sizes, each too small, and goes on once there is room.
/// Needs a user and mount namespace (`unshare`); the reason is returned where there is none.
pub fn full_disks(sizes: u32) -> Result<String, String> {
    let bench = Bench::new();
    bench.ok(&["run", "brief.toml", "--out", "whole"]);
    let want = fingerprint(&bench.path("whole"));
    let whole = size(&bench.path("whole"));
    let disk = bench.path("disk");
    std::fs::create_dir(&disk).unwrap();
    let mut bytes_named = 0;
    for i in 0..sizes {
        // From almost nothing to just too small; the run's peak is above its final size.
        let kib = 4 * (1 + u64::from(i) * (whole / 4096 - 1) / u64::from(sizes));
        let kept = bench.path(&format!("kept-{i}"));
        let script = "set -e
            mount -t tmpfs -o size=$1k none \"$2\" || exit 77
            code=0; \"$3\" run brief.toml --out \"$2/run\" 2> \"$4.errors\" || code=$?
            echo $code > \"$4.code\"
            ls \"$2/run/checkpoints\" > \"$4.checkpoints\" 2> /dev/null || true
            mount -o remount,size=64m \"$2\"
            \"$3\" run brief.toml --out \"$2/run\" --resume > /dev/null 2>> \"$4.errors\"
            cp -r \"$2/run\" \"$4\"";
        let status = Command::new("unshare")
            .args(["-rm", "sh", "-c", script, "sh", &kib.to_string()])
            .args([&disk, &built("monopath"), &kept])
            .current_dir(bench.path(""))
            .output();
        let output = status.map_err(|e| format!("unshare cannot be run: {e}"))?;
        let read = |suffix: &str| {
            std::fs::read_to_string(format!("{}.{suffix}", kept.display())).unwrap_or_default()
        };
        if read("code").is_empty() {
            return Err(format!(
                "no tmpfs can be mounted: {}",
                String::from_utf8_lossy(&output.stderr).trim()
            ));
        }
        let errors = read("errors");
        assert!(output.status.success(), "{kib} KiB: {errors}");
        assert_eq!(read("code").trim(), "1", "{kib} KiB: {errors}");
        let told = errors.lines().find(|l| l.starts_with("error: ")).unwrap_or_default();
        assert!(
            told.contains("No space left on device") && told.contains("/disk/run"),
            "{kib} KiB: {errors}"
        );
        bytes_named += u32::from(told.contains("bytes)"));
        assert!(!read("checkpoints").contains("unfinished"), "{kib} KiB: a torn file is left");
        assert_eq!(fingerprint(&kept), want, "{kib} KiB");
    }
    assert!(bytes_named > 0, "no run was stopped in a file whose size is known");
    Ok(format!(
        "{sizes} full disks of 4 to {} KiB, each told with the file ({bytes_named} with the bytes needed) and \
         resumed once there was room; no bit different",
        whole / 1024
    ))
}

/// Bytes of all files below a folder, in whole pages.
fn size(folder: &std::path::Path) -> u64 {
    let entries = std::fs::read_dir(folder).unwrap().map(|e| e.unwrap());
    entries
        .map(|e| {
            let data = e.metadata().unwrap();
            if data.is_dir() { 4096 + size(&e.path()) } else { data.len().next_multiple_of(4096) }
        })
        .sum()
}
