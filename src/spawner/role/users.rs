//! Look-ups of users, for the parent and for workers: a helper asks the system, the parent asks
//! tables.

use std::time::Instant;

use super::Spawner;
use crate::ipc::blocking::ChannelError;
use crate::ipc::message::spawner::{
    Duty, SpawnerToParent, SpawnerToWorker, UserAnswer, WorkerToSpawner,
};
use crate::spawner::lookups::Asker;

impl Spawner {
    pub(super) fn look_up(&mut self, asker: Asker, name: String) {
        if self.helper.is_none() {
            match self.starter().and_then(|starter| starter.start(Duty::Users, None)) {
                Ok(helper) => self.helper = Some(helper),
                Err(error) => {
                    return self.answer(asker, UserAnswer::Failed(error.to_string()));
                }
            }
        }
        let Some(number) = self.lookups.begin(asker, Instant::now()) else {
            return self.answer(asker, UserAnswer::Failed("too many look-ups".to_owned()));
        };
        let control = self.helper.as_mut().and_then(|helper| helper.control.as_mut());
        let asked = control
            .map(|control| control.request(number, &SpawnerToWorker::LookUpUser { name }, None));
        if !matches!(asked, Some(Ok(()))) {
            self.lookups.end(number);
            self.answer(asker, UserAnswer::Failed("the look-up could not be asked".to_owned()));
        }
    }

    /// Has the parent look up an entry of a userbase.
    pub(super) fn look_up_in(&mut self, asker: Asker, userbase: String, name: String) {
        let Some(number) = self.entries.begin(asker) else {
            return self.answer(asker, UserAnswer::Failed("too many look-ups".to_owned()));
        };
        let question = SpawnerToParent::LookUpIn { userbase, name };
        if let Err(error) = self.parent.request(number, &question, None) {
            self.entries.end(number);
            self.answer(asker, UserAnswer::Failed(error.to_string()));
        }
    }

    pub(super) fn answer(&mut self, asker: Asker, answer: UserAnswer) {
        // An answer above the limit of a frame is none: its asker gives up in time.
        match asker {
            Asker::Parent(number) => {
                let _ = self.parent.reply(number, &SpawnerToParent::User(answer), None);
            }
            Asker::Worker(pid, number) => {
                let worker = self.workers.iter_mut().find(|d| d.worker.pid == pid);
                if let Some(control) = worker.and_then(|d| d.worker.control.as_mut()) {
                    let _ = control.reply(number, &SpawnerToWorker::User(answer), None);
                }
            }
        }
    }

    pub(super) fn fail_lookups(&mut self, why: &str) {
        for asker in self.lookups.give_up() {
            self.answer(asker, UserAnswer::Failed(why.to_owned()));
        }
    }

    pub(super) fn hear_helper(&mut self, readable: bool) {
        let Some(helper) = &mut self.helper else { return };
        let mut answers = Vec::new();
        let mut end = helper.exchange(readable).err();
        while let Some(control) = &mut helper.control {
            match control.next_message() {
                Ok(None) => break,
                Ok(Some(received)) => match received.message {
                    None => {}
                    Some(WorkerToSpawner::User(answer)) => answers.push((received.number, answer)),
                    Some(_) => helper.give_up(&"it asked instead of answering"),
                },
                Err(error) => {
                    end = Some(error);
                    break;
                }
            }
        }
        match end {
            None => {}
            Some(ChannelError::Closed) => helper.leaves(),
            Some(error) => helper.give_up(&error),
        }
        for (number, answer) in answers {
            if let Some(asker) = self.lookups.end(number) {
                self.answer(asker, answer);
            }
        }
    }
}
