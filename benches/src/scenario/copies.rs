//! A large file and many small ones into a container and out of it, beside `cp` on the host.

use std::fs;
use std::path::Path;

use anyhow::Result;
use warden_protocol::messages::{CopyInRequest, CopyOutRequest};
use warden_tests::files;

use crate::bench::Bench;
use crate::peer::execute;
use crate::report::{Report, Unit};
use crate::warden::{Handle, Warden, timed};

/// Bytes of a small file.
const SMALL: usize = 1000;
/// What is copied to inside.
const INSIDE: &str = "/home/vcap/copy";

/// Measures both, each way, in turns with `cp`.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (rounds, length, count) = bench.options.pick((3, 1_000_000_000, 10_000), (2, 100_000_000, 500));
    let directory = files::directory();
    let (large, small) = (directory.path().join("large"), directory.path().join("small"));
    fs::create_dir(&large)?;
    fs::write(large.join("file"), vec![b'x'; length])?;
    fs::create_dir(&small)?;
    for number in 0..count {
        fs::write(small.join(format!("{number:05}")), [b'x'; SMALL])?;
    }
    let mut warden = Warden::start(&bench.options, &[])?;
    let what = [
        (large, format!("{} MB", length / 1_000_000), length as f64 / 1e6, Unit::MegabytesPerSecond),
        (small, format!("{count} files"), count as f64, Unit::PerSecond),
    ];
    for _ in 0..rounds {
        for (source, name, amount, unit) in &what {
            let handle = warden.create()?.0;
            let target = directory.path().join("target");
            both_ways(&mut bench.report, &mut warden, &handle, source, &target, (name, *amount, *unit))?;
            warden.destroy(&handle)?;
        }
    }
    Ok(())
}

fn both_ways(
    report: &mut Report,
    warden: &mut Warden,
    handle: &Handle,
    source: &Path,
    target: &Path,
    (name, amount, unit): (&str, f64, Unit),
) -> Result<()> {
    let mut record = |way: &str, who: &str, took: f64| {
        report.record(&format!("copy of {name} {way}"), who, unit, Ok(amount * 1e3 / took));
    };
    let source = format!("{}/", source.display());
    let inward = CopyInRequest {
        handle: Some(handle.clone()),
        src_path: Some(source.clone().into()),
        dst_path: Some(INSIDE.into()),
    };
    let outward = CopyOutRequest {
        handle: Some(handle.clone()),
        src_path: Some(format!("{INSIDE}/").into()),
        dst_path: Some(target.display().to_string().into()),
        owner: None,
    };
    let (runtime, client) = warden.parts();
    let (_, took) = timed(|| Ok(runtime.block_on(client.request(inward))?))?;
    record("in", crate::report::WARDEN, took);
    let (_, took) = timed(|| Ok(runtime.block_on(client.request(outward))?))?;
    record("out", crate::report::WARDEN, took);
    fs::remove_dir_all(target)?;
    let line = ["cp", "-r", &source, &target.display().to_string()].map(str::to_owned);
    let ((), took) = timed(|| execute(&line))?;
    fs::remove_dir_all(target)?;
    record("in", "cp on the host", took);
    record("out", "cp on the host", took);
    Ok(())
}
