//! A forked worker in the pool's hands: one like any other, whose crash its shelf is told of.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shelf;
use super::crashes::crash;
use super::template::Template;
use crate::job::{Job, RunEvent, RunReport};
use crate::source::{BoxFuture, Reaped, Worker, WorkerIdentity, WorkerKind};
use crate::spec::WorkerSpec;
use crate::status::ForkFailure;
use crate::worker::DenoWorker;

pub(super) struct Watched {
    pub(super) worker: DenoWorker,
    pub(super) spec: Arc<WorkerSpec>,
    pub(super) template: Arc<Template>,
    pub(super) shelf: Arc<Shelf>,
}

impl Worker for Watched {
    fn identity(&self) -> WorkerIdentity {
        self.worker.identity()
    }

    fn kind(&self) -> WorkerKind {
        self.worker.kind()
    }

    fn died(&mut self) -> BoxFuture<'_, ()> {
        self.worker.died()
    }

    fn run(
        self: Box<Self>,
        job: Job,
        events: Option<mpsc::Sender<RunEvent>>,
        cancel: CancellationToken,
    ) -> BoxFuture<'static, (RunReport, Reaped)> {
        let Self { worker, spec, template, shelf } = *self;
        Box::pin(async move {
            let (report, reaped) = Box::new(worker).run(job, events, cancel).await;
            // A template takes its children along, and is counted itself.
            if let Some(signal) = crash(&report.verdict)
                && template.is_alive()
            {
                let why = format!("forked workers keep crashing (signal {signal})");
                shelf.crashed(&spec, ForkFailure::Crash, &why);
            }
            (report, reaped)
        })
    }

    fn retire(self: Box<Self>) -> Reaped {
        Box::new(self.worker).retire()
    }
}
