//! The deliveries that a recipient comes to, each made once.

use serde::{Deserialize, Serialize};

use super::files::Found;
use super::{Expansion, Refusal};
use crate::config::{ActionId, Config, LocalAction, Method};
use crate::lookup::address::Address;

/// One delivery that a recipient came to.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Delivery {
    /// What to do.
    pub action: ActionId,
    /// The address that led here: the recipient itself or one that it was expanded to.
    pub destination: Address,
    /// Where it goes.
    pub kind: DeliveryKind,
}

/// Where a delivery goes.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum DeliveryKind {
    /// To a user of this machine.
    Local {
        /// The user's name in the action's userbase, lower-cased, without a tag.
        user: String,
        /// What stood after the delimiter, lower-cased.
        tag: Option<String>,
        /// How it is delivered.
        target: Target,
    },
    /// To another server.
    Relay,
}

/// How a message is delivered to a user.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub enum Target {
    /// By this shell command, with format specifiers, instead of the action's method.
    Command(String),
    /// Into this file.
    File(String),
    /// By the action's method.
    Method,
}

/// What makes two deliveries the same: one of them is made.
#[derive(Debug, Eq, Hash, PartialEq)]
pub(super) enum Delivered {
    /// With the address that led here where the way differs by it.
    Local(ActionId, String, Target, Option<Address>),
    Relay(ActionId, Address),
}

impl Expansion {
    /// A command or a file: that of the user whose `.forward` names it, otherwise the daemon's.
    pub(super) fn run_or_append(
        &mut self,
        config: &Config,
        index: usize,
        target: Target,
    ) -> Result<(), Refusal> {
        let user = self.nodes.parent(index).and_then(|parent| parent.user.clone());
        if user.as_ref().is_some_and(|user| user.uid == 0) {
            return Err(Refusal::later("nothing runs and no file is written as root"));
        }
        if self.is(config, index, &Method::ForwardOnly) {
            return Err(Refusal::later("it may only be forwarded"));
        }
        let user = user.map_or_else(|| self.daemon_user.clone(), |user| user.name);
        self.deliver(config, index, user, None, target);
        Ok(())
    }

    /// A delivery to a user by the action's own method.
    pub(super) fn deliver_to(
        &mut self,
        config: &Config,
        index: usize,
        to: Found,
    ) -> Result<(), Refusal> {
        if self.is(config, index, &Method::ForwardOnly) {
            return Err(Refusal::expansion_later("the user does not forward it"));
        }
        if self.is(config, index, &Method::ExpandOnly) {
            return Err(Refusal::expansion("nothing says how to deliver it"));
        }
        self.deliver(config, index, to.user, to.tag, Target::Method);
        Ok(())
    }

    /// Notes a local delivery, once for each user, action and way. Addresses whose mail one account
    /// keeps, in mailboxes of their own, are different ways.
    fn deliver(
        &mut self,
        config: &Config,
        index: usize,
        user: String,
        tag: Option<String>,
        target: Target,
    ) {
        let Some(action) = self.nodes.get(index).and_then(|node| node.action) else { return };
        let destination = self.nodes.destination(index);
        let by_address = self
            .local_action(config, index)
            .is_some_and(|action| depends_on_address(config, action, &target));
        let apart = by_address.then(|| destination.clone());
        if self.delivered.insert(Delivered::Local(action, user.clone(), target.clone(), apart)) {
            let kind = DeliveryKind::Local { user, tag, target };
            self.origins.push(index);
            self.deliveries.push(Delivery { action, destination, kind });
        }
    }

    /// Notes a delivery to another server, once for each address and action.
    pub(super) fn relay(&mut self, index: usize, action: ActionId) {
        let destination = self.nodes.destination(index);
        if self.delivered.insert(Delivered::Relay(action, destination.clone())) {
            self.origins.push(index);
            self.deliveries.push(Delivery { action, destination, kind: DeliveryKind::Relay });
        }
    }
}

/// Whether deliveries to one user differ by the address that led to them.
fn depends_on_address(config: &Config, action: &LocalAction, target: &Target) -> bool {
    let names_it = |text: &str| text.to_ascii_lowercase().contains("%{dest");
    let wrapper = action.wrapper.and_then(|wrapper| config.wrapper(wrapper));
    if wrapper.is_some_and(|wrapper| names_it(&wrapper.command)) {
        return true;
    }
    match (target, &action.method) {
        (Target::Command(text) | Target::File(text), _) => names_it(text),
        (Target::Method, Method::Lmtp { destination, recipient_address }) => {
            *recipient_address || names_it(destination)
        }
        (Target::Method, Method::Maildir { path, .. }) => path.as_deref().is_some_and(names_it),
        // A command finds it in its environment too.
        (Target::Method, Method::Mda { .. }) => true,
        (Target::Method, Method::ExpandOnly | Method::ForwardOnly | Method::Mbox) => false,
    }
}
