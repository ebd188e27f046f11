//! The only holder of private keys. Until listeners have TLS it holds none, and only counts.

use std::process::ExitCode;
use std::sync::Arc;

use platform::Role;

use crate::ipc::link::Link;
use crate::ipc::message::control::{ControlToKeys, KeysToControl};
use crate::ipc::message::parent::{ParentToRole, Peer};
use crate::process::{self, Context, Threads};

/// Runs the role.
pub fn run() -> ExitCode {
    process::run(Role::Keys, Threads::One, |_| Ok(()), serve)
}

async fn serve(context: Context, (): ()) {
    context.ready().await;
    let Context { setup, parent: _parent, mut orders, memory, .. } = context;
    let memory = Arc::new(memory);
    while let Some(order) = orders.recv().await {
        match (order.message, order.descriptor) {
            (ParentToRole::Attach { peer: Peer::Control }, Some(descriptor)) => {
                let opened = Link::<KeysToControl, ControlToKeys>::open(descriptor, setup.credits);
                let Ok((_, mut arrivals)) = opened else { continue };
                let memory = Arc::clone(&memory);
                tokio::spawn(async move {
                    while let Some(arrived) = arrivals.recv().await {
                        let ControlToKeys::Statistics = arrived.message;
                        let message = KeysToControl::Statistics(memory.snapshot(Vec::new()));
                        let _gone = arrived.responder.reply(&message, None);
                    }
                });
            }
            (ParentToRole::Switch(switches), _) => crate::log::set_verbose(switches.verbose),
            _ => {}
        }
    }
}
