//! The labels by which everything that we make in an engine is found again.

use std::collections::HashMap;

use super::Config;
use crate::function::Deployment;

/// On everything; its value is the instance.
pub const INSTANCE: &str = "tinyFaaS";
/// On what belongs to one function: its name.
pub const FUNCTION: &str = "tinyfaas-function";
/// On what belongs to one version of a function: [`Deployment::digest`].
pub const DIGEST: &str = "tinyfaas-digest";
/// On the containers that are handlers: [`OWN`] or [`FOREIGN`].
pub const HANDLER: &str = "tinyfaas-handler";
/// The handler's program is ours: it listens on the socket where it is given one.
pub const OWN: &str = "own";
/// The handler's image was named by the operator: it may know only the contract's TCP port.
pub const FOREIGN: &str = "foreign";
/// On handlers: which run of the server started them.
pub const RUN: &str = "tinyfaas-run";
/// On the images of runtimes: the runtime's name.
pub const RUNTIME: &str = "tinyfaas-runtime";

/// The labels of what belongs to the instance alone.
pub fn of_instance(config: &Config) -> HashMap<String, String> {
    HashMap::from([(INSTANCE.to_string(), config.instance.clone())])
}

/// The labels of what belongs to one version of a function.
pub fn of_deployment(config: &Config, deployment: &Deployment) -> HashMap<String, String> {
    let mut labels = of_instance(config);
    labels.insert(FUNCTION.into(), deployment.name.to_string());
    labels.insert(DIGEST.into(), deployment.digest.clone());
    labels
}

/// The engine's filter for what carries our label: of one instance, or of any.
pub fn filter(instance: Option<&str>) -> HashMap<String, Vec<String>> {
    let label = instance.map_or_else(|| INSTANCE.to_string(), |i| format!("{INSTANCE}={i}"));
    HashMap::from([("label".to_string(), vec![label])])
}
