//! The stage that trains the shared weights.

use std::collections::BTreeMap;

use engine::{ParamStore, Rng};
use serde::{Deserialize, Serialize};

use super::Run;
use crate::checkpoint::Archive;
use crate::data::{Loader, Pass, Pipeline};
use crate::error::{Error, Result};
use crate::event::Stage;
use crate::files;
use crate::gates::{GateJob, Gates};
use crate::model::{Model, NormParams};
use crate::space::Slot;
use crate::train::{self, Job, Session};

/// The trained shared weights with their model.
pub(crate) struct Supernet {
    pub model: Model,
    pub store: ParamStore,
    pub gates: Option<Gates>,
}

/// What `supernet.safetensors` says of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Meta {
    space: String,
    digest: String,
    seconds: f64,
    events: u64,
}

/// Trains, goes on training, or reads what was trained.
pub(crate) fn train(run: &mut Run<'_>) -> Result<Supernet> {
    let model = Model::new(&run.space, NormParams::Supernet)?;
    let path = run.dir.supernet();
    if path.exists() {
        let archive = Archive::from_bytes(&files::read(&path)?, &path)?;
        let mut store = model.init(&run.device, &Rng::new(run.recipe.seed, "init"))?;
        model.load_weights(&mut store, &archive, &path)?;
        let meta: Meta = archive.meta(&path)?;
        run.journal.vouch(meta.events);
        let mut gates = run.recipe.supernet.gates.as_ref().map(|_| Gates::new(&run.space, run.recipe.seed));
        if let Some(gates) = &mut gates {
            gates.load(&archive, &path)?;
        }
        return Ok(Supernet { model, store, gates });
    }
    let Run { recipe, space, data, device, stop, checkpoints, journal, .. } = run;
    let sampler = recipe.supernet.sampler.build();
    let paths = Rng::new(recipe.seed, "path");
    let count = recipe.supernet.paths(space)? as u32;
    let pipeline = Pipeline::new(&recipe.data.eval, &recipe.data.normalise)?;
    let gates = recipe.supernet.gates.as_ref().map(|config| GateJob {
        config,
        images: &data.val,
        pipeline: &pipeline,
        loader: recipe.data.loader(config.batch),
        seed: recipe.seed,
        draws: true,
    });
    let job = Job {
        stage: Stage::TrainSupernet,
        subject: "supernet",
        model: &model,
        paths: &|step| (0..count).map(|number| sampler.path(space, &paths, step, number)).collect(),
        path_images: recipe.supernet.images,
        at_once: recipe.supernet.paths_at_once(),
        config: &recipe.supernet.train,
        log: &recipe.log,
        images: &data.train,
        seed: recipe.seed,
        running_statistics: false,
        gates: gates.as_ref(),
        stop,
    };
    let mut session = Session::resume(&job, device, checkpoints, journal)?;
    let mut loader = Loader::new(
        data.train.clone(),
        Pipeline::new(&recipe.data.augment, &recipe.data.normalise)?,
        Pass::Train,
        recipe.seed,
        recipe.data.loader(recipe.supernet.train.batch),
    )?;
    train::train(&job, &mut session, &mut loader, checkpoints, journal)?;
    let Session { store, gates, seconds, .. } = session;
    let digest = run.space.digest()?;
    let meta = Meta { space: run.space.name().to_owned(), digest, seconds, events: run.journal.flush()? };
    let mut archive = Archive::new(&meta)?;
    model.save_weights(&store, &mut archive)?;
    if let Some(gates) = &gates {
        gates.save(&mut archive);
        write_gates(run, gates)?;
    }
    files::write_atomic(&path, &archive.to_bytes()?)?;
    run.checkpoints.clear("supernet")?;
    Ok(Supernet { model, store, gates })
}

/// The probabilities of every slot's candidates by label, for a person.
fn write_gates(run: &Run<'_>, gates: &Gates) -> Result<()> {
    let slot = |(slot, p): (&Slot, Vec<f64>)| {
        let of: BTreeMap<String, f64> = slot.choices.iter().map(|c| c.label.clone()).zip(p).collect();
        (slot.name.clone(), of)
    };
    let all: BTreeMap<String, BTreeMap<String, f64>> =
        run.space.slots().iter().zip(gates.probabilities()).map(slot).collect();
    let path = run.dir.gates();
    let text = serde_json::to_string_pretty(&all)
        .map_err(|e| Error::Format { path: path.clone(), reason: e.to_string() })?;
    files::write_atomic(&path, text.as_bytes())
}
