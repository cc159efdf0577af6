//! What an engine is and what it has, for `tinyfaas doctor`. Nothing is made or pulled.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::engine::Fault;
use super::{Docker, image};
use crate::backend::BackendError;
use crate::runtimes::Spec;

/// What an engine says of its machine.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "PascalCase", default)]
pub struct About {
    /// Its version.
    pub server_version: String,
    /// The machine's processor as uname(2) tells it.
    pub architecture: String,
    /// The version of its cgroups, of engines that tell it.
    pub cgroup_version: String,
    memory_limit: bool,
    cpu_cfs_quota: bool,
    pids_limit: Option<bool>,
}

impl About {
    /// The limits that the engine cannot enforce.
    pub fn not_limited(&self) -> Vec<&'static str> {
        // Engines of before API 1.40 do not tell of pids.
        let all =
            [("memory", self.memory_limit), ("cpu", self.cpu_cfs_quota), ("pids", self.pids_limit.unwrap_or(true))];
        all.into_iter().filter(|(_, can)| !can).map(|(what, _)| what).collect()
    }
}

/// What there is to run a runtime's handlers from.
#[derive(Debug, PartialEq, Eq)]
pub enum Image {
    /// The image of its handlers, by its name.
    Made(String),
    /// The operator's image, which is absent.
    NotLoaded(String),
    /// The image to make it from.
    Base(String),
    /// That is absent, but a registry that the engine reaches has it.
    Pullable(String),
    /// That is absent, and why the engine cannot get it.
    Nowhere(String, String),
}

impl Docker {
    /// What the engine says of itself.
    ///
    /// # Errors
    /// As [`Docker::probe`].
    pub async fn about(&self) -> Result<About, BackendError> {
        Ok(self.inner.ask("/info".to_owned()).await?)
    }

    /// What there is to run handlers of that runtime from. Where `registry` is false, none is asked.
    ///
    /// # Errors
    /// When the engine refuses or cannot be reached.
    pub async fn image_of(&self, spec: &Spec, registry: bool) -> Result<Image, BackendError> {
        let inner = &*self.inner;
        let tag = image::runtime_tag(inner, spec.runtime).await?;
        if image::exists(inner, &tag).await? {
            return Ok(Image::Made(tag));
        }
        if inner.config.image(spec.runtime).is_some() {
            return Ok(Image::NotLoaded(tag));
        }
        let base = inner.config.base(spec.runtime).unwrap_or(spec.base).to_owned();
        if image::exists(inner, &base).await? {
            return Ok(Image::Base(base));
        }
        if !registry {
            return Ok(Image::Nowhere(base, "no registry was reached before".to_owned()));
        }
        match inner.ask::<IgnoredAny>(format!("/distribution/{base}/json")).await {
            Ok(_) => Ok(Image::Pullable(base)),
            Err(Fault::Late(why) | Fault::Refused(_, why)) => Ok(Image::Nowhere(base, why)),
            Err(fault) => Err(fault.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_kernel_without_the_memory_controller_is_told() {
        let about = |json| serde_json::from_str::<About>(json).unwrap();
        let old = about(r#"{"ServerVersion":"18.9","MemoryLimit":false,"CpuCfsQuota":true}"#);
        assert_eq!(old.not_limited(), ["memory"]);
        let new = about(r#"{"MemoryLimit":true,"CpuCfsQuota":true,"PidsLimit":true,"Architecture":"armv7l"}"#);
        assert_eq!((new.not_limited().len(), &*new.architecture), (0, "armv7l"));
    }
}
