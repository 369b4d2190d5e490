//! Whether what a container costs depends on how many there are.

use anyhow::Result;

use crate::bench::Bench;
use crate::crowd;
use crate::memory::Machine;
use crate::report::Unit;
use crate::scenario::idle;
use crate::svg::{Curve, lines};
use crate::warden::{Warden, timed};

/// Measures creation, use and removal of one more beside ever more containers.
pub(crate) fn measure(bench: &mut Bench) -> Result<()> {
    let (sizes, rounds) = bench.options.pick((&[10, 100, 1000, 2000][..], 30), (&[10, 100][..], 10));
    let mut warden = Warden::start(&bench.options, &[])?;
    let before = Machine::now()?;
    let (mut handles, mut spent) = (Vec::new(), 0.0);
    for &size in sizes {
        let (more, took) = timed(|| crowd::create(&warden, size - handles.len()))?;
        handles.extend(more);
        spent += took;
        for _ in 0..rounds {
            let (handle, created) = warden.create()?;
            let (ran, asked) = (warden.run(&handle, "true")?, warden.info(&handle)?);
            let destroyed = warden.destroy(&handle)?;
            for (what, took) in
                [("create", created), ("run true", ran), ("info", asked), ("destroy", destroyed)]
            {
                bench.report.figure(&scenario(what, size), Unit::Milliseconds, took);
            }
        }
    }
    let size = handles.len();
    bench.report.figure(&format!("{size} containers made by 4 clients"), Unit::Milliseconds, spent);
    idle::containers(&mut bench.report, &warden, before, size)?;
    let ((), took) = timed(|| crowd::destroy(&warden, handles))?;
    bench.report.figure(&format!("{size} containers destroyed by 4 clients"), Unit::Milliseconds, took);
    draw(bench, sizes)
}

fn scenario(what: &str, size: usize) -> String {
    format!("{what} beside {size} containers")
}

fn draw(bench: &mut Bench, sizes: &[usize]) -> Result<()> {
    let curve = |what: &str| Curve {
        name: what.to_owned(),
        points: sizes
            .iter()
            .filter_map(|&size| Some((size as f64, bench.report.median(&scenario(what, size))?)))
            .collect(),
    };
    let curves = ["create", "run true", "info", "destroy"].map(curve);
    let drawing = lines("Latency beside other live containers (medians)", "live containers", &curves);
    bench.write("density.svg", &drawing)
}
