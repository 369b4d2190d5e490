//! What was opened for a container and is closed again, because its client cannot be told that it is open.

use super::records::PortMapping;
use super::{Network, failed, rule};
use crate::error::Error;
use crate::id::Id;
use crate::pool::lock;
use crate::request::NetOut;

impl Network {
    /// Takes a forwarded port back; one that went with its container is well.
    pub(crate) fn withdraw_port(&self, id: Id, mapping: PortMapping) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let Some(member) = state.members.get_mut(&id) else { return Ok(()) };
        let Some(index) = member.records.net_in.iter().rposition(|known| *known == mapping) else {
            return Ok(());
        };
        member.records.net_in.remove(index);
        let forwards = member.forwards(mapping);
        let changed = state.change(|table| forwards.for_each(|forward| table.delete_forward(forward)));
        if changed.is_ok() {
            state.forwards.release(&[mapping]);
        } else if let Some(member) = state.members.get_mut(&id) {
            member.records.net_in.insert(index, mapping);
        }
        changed.map_err(failed)
    }

    /// Takes back the last of what was opened with this request.
    pub(crate) fn withdraw_rule(&self, id: Id, request: &NetOut) -> Result<(), Error> {
        let mut state = lock(&self.state);
        let Some(member) = state.members.get_mut(&id) else { return Ok(()) };
        let Some(index) = member.records.net_out.iter().rposition(|known| known == request) else {
            return Ok(());
        };
        let withdrawn = member.records.net_out.remove(index);
        let left: Vec<_> = member.records.net_out.iter().flat_map(rule::read).collect();
        let (addresses, mark) = (member.addresses, state.firewall.mark());
        let changed = state.change(|table| table.allow_only(id, addresses, &left, mark));
        if let (Err(_), Some(member)) = (&changed, state.members.get_mut(&id)) {
            member.records.net_out.insert(index, withdrawn);
        }
        changed.map_err(failed)
    }
}
