//! The bridge that all handlers with network share, so that the engine's address pools suffice for any number.

use std::collections::HashMap;
use std::net::IpAddr;

use bollard::models::NetworkCreateRequest;

use super::ask::InspectedNetwork;
use super::engine::Fault;
use super::{Inner, Network, labels};

/// The option that keeps containers on one bridge from reaching each other.
const NO_CROSS_TRAFFIC: &str = "com.docker.network.bridge.enable_icc";

/// Makes the shared network where it is needed and absent. Returns the address of this machine in the network of handlers, where
/// it is known.
///
/// # Errors
/// [`Fault`].
pub async fn ensure(inner: &Inner) -> Result<Option<IpAddr>, Fault> {
    let name = match &inner.config.network {
        Network::Shared => inner.config.network_name(),
        Network::None => return Ok(None),
        // One that is not there is the container's to complain of.
        Network::Named(name) => return Ok(look(inner, name).await.ok().and_then(|found| found.gateway())),
    };
    // Two that find it absent would make two of one name.
    let _one = inner.making.lock().await;
    match look(inner, &name).await {
        Err(fault) if fault.is(404) => {}
        found => return found.map(|found| found.gateway()),
    }
    let config = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".into()),
        options: Some(HashMap::from([(NO_CROSS_TRAFFIC.to_string(), "false".to_string())])),
        labels: Some(labels::of_instance(&inner.config)),
        ..Default::default()
    };
    inner.call(Box::pin(inner.engine.client.create_network(config))).await?;
    look(inner, &name).await.map(|made| made.gateway())
}

async fn look(inner: &Inner, name: &str) -> Result<InspectedNetwork, Fault> {
    inner.ask(format!("/networks/{name}")).await
}

/// Removes the shared network. One that is gone or still in use is no error.
///
/// # Errors
/// [`Fault`].
pub async fn remove(inner: &Inner) -> Result<(), Fault> {
    let name = inner.config.network_name();
    match inner.call(Box::pin(inner.engine.client.remove_network(&name))).await {
        Err(fault) if !fault.is(404) && !fault.is(403) => Err(fault),
        _ => Ok(()),
    }
}
