//! Which names are worked on, by whom, and how far that is.

use super::{DeployError, Deployer, lock};
use crate::backend::{Progress, Seen};
use crate::function::Name;

/// What is done with a name.
#[derive(Default)]
pub(super) struct Work {
    /// That of the version that is being made ready; empty where none is.
    pub(super) digest: String,
    /// That of a deployment.
    pub(super) progress: Option<Progress>,
}

/// Keeps a name to one deployment, deletion or restoration at a time.
pub(super) struct Busy<'d> {
    deployer: &'d Deployer,
    name: Name,
}

impl Deployer {
    /// Keeps others from a name.
    ///
    /// # Errors
    /// 409 while another one has it.
    pub(super) fn take_name(&self, name: &Name) -> Result<Busy<'_>, DeployError> {
        if lock(&self.busy).contains_key(name) {
            let text = format!("{name} is being deployed, deleted or restored right now: try again when that is done");
            return Err(DeployError::new(409, text));
        }
        self.preparing(name, String::new());
        Ok(Busy { deployer: self, name: name.clone() })
    }

    /// Says which version of a busy name is being made ready: none where `digest` is empty.
    pub(super) fn preparing(&self, name: &Name, digest: String) {
        self.work(name, |work| work.digest = digest);
    }

    /// Changes what is known of the work on a name.
    pub(super) fn work(&self, name: &Name, change: impl FnOnce(&mut Work)) {
        change(lock(&self.busy).entry(name.clone()).or_default());
    }

    /// How far the deployment of that name is; `None` where there is none.
    pub fn progress(&self, name: &Name) -> Option<Seen> {
        lock(&self.busy).get(name)?.progress.as_ref().map(Progress::seen)
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        lock(&self.deployer.busy).remove(&self.name);
    }
}
