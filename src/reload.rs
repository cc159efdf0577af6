//! What can change while the server runs, and changes it on SIGHUP.

use std::sync::Arc;

use async_channel::Sender;

use crate::config::Config;
use crate::config_file::{Layers, Setting};
use crate::deploy::{self, Deployer};
use crate::fetch;
use crate::logging;
use crate::management::{Management, Settings};
use crate::provision::Job;
use crate::tls::Doors;
use crate::tokens::Tokens;
use crate::upload_request::Defaults;
use crate::worker::Workers;

/// What is read again, and who is told of it.
pub struct Reload {
    /// Where settings come from.
    pub layers: Arc<Layers>,
    /// What the file said that holds now.
    pub settings: Vec<Setting>,
    /// All settings that hold now.
    pub config: Config,
    /// The enabled front doors as scheme and port.
    pub front_doors: Vec<(&'static str, u16)>,
    /// Who may ask the management API.
    pub tokens: Option<Arc<Tokens>>,
    /// Doors with certificates.
    pub tls: Option<Arc<Doors>>,
    /// Deploys functions.
    pub deployer: Arc<Deployer>,
    /// Answers the management API.
    pub management: Arc<Management>,
    /// Takes folders of functions.
    pub jobs: Sender<Job>,
}

impl Reload {
    /// Whether there is a file or a folder to read again.
    pub fn is_of_use(&self) -> bool {
        let config = &self.config;
        [&config.config, &config.functions, &config.token_file, &config.tls_cert].iter().any(|path| path.is_some())
    }

    /// Reads the file again and takes over what can be; where it is wrong, all stays as it is. Then has the folder of
    /// functions looked through.
    pub async fn reload(&mut self, workers: &Workers) {
        let (layers, before) = (Arc::clone(&self.layers), self.settings.clone());
        let read = workers.unblock(move || layers.reread(&before)).await;
        match read.map_err(|e| e.to_string()).and_then(|r| r) {
            Err(e) => log::error!("the settings stay as they were: {e}"),
            Ok(reread) => {
                self.config = reread.now.config;
                self.settings = reread.now.settings;
                logging::init(self.config.log, self.config.log_format);
                self.deployer.set_bounds(deploy_bounds(&self.config));
                for key in reread.changed {
                    log::info!("{key} was changed by the file of settings");
                }
                for key in reread.stuck {
                    log::warn!("{key} is other in the file of settings now: that needs a restart");
                }
            }
        }
        if let Some(path) = self.config.token_file.clone() {
            match workers.unblock(move || Tokens::read(&path)).await.map_err(|e| e.to_string()).and_then(|r| r) {
                Ok(tokens) => self.tokens = Some(Arc::new(tokens)),
                Err(e) => log::error!("the tokens stay as they were: {e}"),
            }
        }
        if let Some(tls) = self.tls.clone() {
            match workers.unblock(move || tls.reload()).await.map_err(|e| e.to_string()).and_then(|r| r) {
                Ok(()) => log::info!("certificates were read again"),
                Err(e) => log::error!("the certificates stay as they were: {e}"),
            }
        }
        self.management.set(management_settings(&self.config, self.front_doors.clone(), self.tokens.clone()));
        self.provision();
    }

    /// Has the folder of functions looked through, if there is one, after what is under way.
    pub fn provision(&self) {
        if let Some(dir) = self.config.functions.clone() {
            let job = Job { dir, defaults: defaults(&self.config), max_archive: self.config.max_upload };
            // What waits already is older; who took jobs stops when the server does.
            let _ = self.jobs.force_send(job);
        }
    }
}

/// Bounds of deployments.
pub fn deploy_bounds(config: &Config) -> deploy::Bounds {
    deploy::Bounds { functions: config.max_functions, health_timeout: config.health_timeout, drain: config.grace }
}

/// What the management API needs to know.
pub fn management_settings(
    config: &Config,
    front_doors: Vec<(&'static str, u16)>,
    tokens: Option<Arc<Tokens>>,
) -> Settings {
    Settings {
        max_upload: config.max_upload,
        max_body: if config.max_body == 0 { u64::MAX } else { config.max_body },
        defaults: defaults(config),
        front_doors,
        public_host: config.public_host.clone(),
        fetch: fetch::Config {
            max_bytes: config.max_upload,
            timeout: config.download_timeout,
            stall_timeout: config.body_timeout,
            policy: fetch::Policy { allow_local: config.allow_local_urls },
            ca_file: config.tls_ca.clone(),
        },
        tokens,
    }
}

fn defaults(config: &Config) -> Defaults {
    Defaults { limits: config.limits(), idle: config.idle.time(), network: config.gives_network() }
}
