//! The configuration is read again, and the sensors are opened.

use anyhow::Context as _;

use super::{RunOptions, clock, cost::Cost, guard::Guard, settings, source::Source};
use crate::{
    config::{
        Config,
        keys::{self, Takes},
    },
    netlink::{Listener, listener::RECEIVE_BUFFER},
    sensor::{self, Lost, Sensors},
};

impl Guard {
    /// Reads the configuration again; a bad one changes nothing.
    pub(super) fn reload(&mut self) -> Result<(), String> {
        // Before the first snapshot the service manager waits for another word.
        let ready = self.core.is_synced();
        if ready {
            self.tell_reloading();
        }
        let result = self.try_reload();
        self.metrics.set_reload(result.is_ok());
        self.rejected = result.as_ref().err().map(|error| format!("{error:#}"));
        if ready {
            self.tell_ready(result.is_err().then_some("the last reload failed, see the log"));
        }
        match &result {
            Ok(()) => log::info!("configuration read again"),
            Err(error) => log::error!("the configuration in use is kept: {error:#}"),
        }
        result.map_err(|error| format!("{error:#}"))
    }

    fn try_reload(&mut self) -> anyhow::Result<()> {
        let config = Config::load(self.options.config_path.as_deref(), &self.options.overrides)?;
        let scope = settings::scope(&config)?;
        let owner = settings::owner(&config)?;
        let later: Vec<&str> = keys::changed(&self.at_start, &config)
            .filter(|key| key.takes == Takes::Restart)
            .map(|key| key.name)
            .collect();
        if !later.is_empty() {
            log::warn!("{}: taken over at the next start", later.join(", "));
        }
        if settings::kernel_scope(&config) != settings::kernel_scope(&self.config) {
            let (source, without_tap) = open_source(&config, &self.options)?;
            // What the old one has seen is taken in; what both have seen does no harm.
            while self.source.take(self.executor.port(), &mut self.taken) {
                self.take_in();
            }
            self.take_in();
            self.count_losses();
            self.reactor.watch(&source.descriptors()).context("cannot wait for the new sensors")?;
            // It is closed in a moment, and then wakes nobody anyhow.
            let _ = self.reactor.forget(&self.source.descriptors());
            self.ordered.forget(self.source.cables().cloned());
            (self.source, self.without_tap) = (source, without_tap);
            self.lost = Lost::default();
            self.cost = Cost::default();
            self.show_sensors();
            self.source.set_links(self.core.outside_links());
        }
        self.core.reconfigure(clock::now(), settings::settings(&config), scope);
        self.managed.look(clock::now());
        self.attribution.look_up_cgroups_at_once(owner.needs_cgroups());
        self.owner_watch.set_rule(owner.clone());
        self.owner = owner;
        self.metrics.set_mode(config.mode);
        self.config = config;
        self.effects();
        Ok(())
    }

    /// Shows in metrics and log which sensors are attached.
    pub(super) fn show_sensors(&self) {
        for sensor in self.source.status(self.without_tap.as_deref()) {
            self.metrics.set_sensor(sensor.name, sensor.attached);
            if !sensor.attached {
                let why = sensor.why.unwrap_or_default();
                let level =
                    if sensor::is_optional(sensor.name) { log::Level::Debug } else { log::Level::Warn };
                log::log!(level, "sensor {} is not attached: {why}", sensor.name);
            }
        }
    }
}

/// The tap where it is wanted and the kernel takes it, plain netlink otherwise, with the reason.
pub(super) fn open_source(config: &Config, options: &RunOptions) -> anyhow::Result<(Source, Option<String>)> {
    let plain = || Listener::open(RECEIVE_BUFFER).map(Source::Plain).context("cannot listen to rtnetlink");
    if options.no_bpf {
        return Ok((plain()?, Some("switched off by --no-bpf".into())));
    }
    let wanted = sensor::Options {
        scope: settings::kernel_scope(config),
        debug: options.debug_bpf,
        ..sensor::Options::default()
    };
    match Sensors::open(&wanted) {
        Ok(sensors) => Ok((Source::tap(sensors), None)),
        Err(error) => Ok((plain()?, Some(error.to_string()))),
    }
}
