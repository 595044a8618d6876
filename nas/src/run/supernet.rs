//! The stage that trains the shared weights.

use engine::{ParamStore, Rng};
use serde::{Deserialize, Serialize};

use super::{Run, RunDir};
use crate::checkpoint::Archive;
use crate::data::{Loader, Pass, Pipeline};
use crate::error::{Error, Result};
use crate::event::Stage;
use crate::files;
use crate::model::{Model, NormParams};
use crate::train::{self, Job, Session};

/// The trained shared weights with their model.
pub(crate) struct Supernet {
    pub model: Model,
    pub store: ParamStore,
}

/// What `supernet.safetensors` says of itself.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(super) struct Meta {
    space: String,
    digest: String,
    seconds: f64,
    events: u64,
}

/// Takes the trained shared weights of a run directory.
pub(super) fn load(dir: &RunDir, model: &Model, store: &mut ParamStore) -> Result<Meta> {
    let path = dir.supernet();
    if !path.exists() {
        return Err(Error::NoSupernet { path: dir.path().to_owned() });
    }
    let archive = Archive::from_bytes(&files::read(&path)?, &path)?;
    model.load_weights(store, &archive, &path)?;
    archive.meta(&path)
}

/// Trains, goes on training, or reads what was trained.
pub(crate) fn train(run: &mut Run<'_>) -> Result<Supernet> {
    let model = Model::new(&run.space, NormParams::Supernet)?;
    let path = run.dir.supernet();
    if path.exists() {
        let mut store = model.init(&run.device, &Rng::new(run.recipe.seed, "init"))?;
        let meta = load(&run.dir, &model, &mut store)?;
        run.journal.vouch(meta.events);
        return Ok(Supernet { model, store });
    }
    let Run { recipe, space, data, device, stop, checkpoints, journal, .. } = run;
    let sampler = recipe.supernet.sampler.build();
    let paths = Rng::new(recipe.seed, "path");
    let count = recipe.supernet.paths(space)? as u32;
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
    let Session { store, seconds, .. } = session;
    let digest = run.space.digest()?;
    let meta = Meta { space: run.space.name().to_owned(), digest, seconds, events: run.journal.flush()? };
    let mut archive = Archive::new(&meta)?;
    model.save_weights(&store, &mut archive)?;
    files::write_atomic(&path, &archive.to_bytes()?)?;
    run.checkpoints.clear("supernet")?;
    Ok(Supernet { model, store })
}
