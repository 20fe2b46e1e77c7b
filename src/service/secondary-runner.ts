// One domain of the secondary: the machine's events gathered, its effects carried out.
//
//   timers ─────────┐                              ┌─▶ dial, links
//   dials, links ───┼─▶ events ─▶ step ─▶ effects ─┼─▶ restorer (secondary-session.ts), domains
//   restorer ───────┘                              └─▶ takeover, reports
//
// The first domain is made ahead: it also tells what the hello says of us.

import type { Subject } from 'rxjs';
import { ChannelError, type LinkEvent, type SecondaryLink } from '../channel/contract.js';
import { backoffDelay } from '../channel/backoff.js';
import type { ChannelToken } from '../channel/token.js';
import { sharesDisks } from '../config/hypervisor.js';
import type { SecondaryDomainConfig } from '../config/schema.js';
import { asError, codeOf } from '../errors.js';
import type { Witness } from '../failover/witness.js';
import type { DomainEvent, DomainInfo } from '../hypervisor/port.js';
import { monotonicMs } from './clock.js';
import type { Outlet } from '../output/outlet.js';
import { consoleFile, openConsole, reopenAll } from './console.js';
import { Credentials } from './credentials.js';
import type { SecondaryDependencies } from './dependencies.js';
import { nameDescriptorLimit } from './descriptors.js';
import { FailoverReport, NO_STANDBY } from './failover-report.js';
import type { Logger } from './log.js';
import { MachineRun } from './machine.js';
import type { Reloaded } from './reload.js';
import type {
  CommitReport,
  DomainStatus,
  FailoverEvent,
  StandbyLossReport,
  StandbyState,
  TransitionReport,
} from './reports.js';
import { dialPrimary, isMisfit } from './secondary-dial.js';
import { stepSecondary } from './secondary-machine.js';
import { SecondarySession, type SessionEvent } from './secondary-session.js';
import {
  initialSecondaryState,
  secondaryLinkState,
  type Held,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondaryState,
  type SecondaryTimer,
} from './secondary-state.js';
import { standstillMsOf } from './shared-disks.js';
import { Standbys, reasonOf, type Standby } from './standby.js';
import { Tap } from './tap.js';
import { Tasks } from './tasks.js';
import { Timers } from './timers.js';

/** Where the runner reports to; shared by all domains of a service. */
export interface SecondaryReports {
  readonly commits$: Subject<CommitReport>;
  readonly failover$: Subject<FailoverEvent>;
  readonly standbyLosses$: Subject<StandbyLossReport>;
  readonly transitions$: Subject<TransitionReport>;
}

const STOP_TIMEOUT_MS = 5000;

export class SecondaryRunner {
  readonly name: string;
  readonly finished: Promise<void>;

  readonly #config: SecondaryDomainConfig;
  readonly #dependencies: SecondaryDependencies;
  readonly #witness: Witness;
  readonly #reports: SecondaryReports;
  readonly #log: Logger;
  readonly #machine: MachineRun<SecondaryState, SecondaryEvent, SecondaryEffect>;
  readonly #timers: Timers<SecondaryTimer>;
  readonly #tasks: Tasks;
  readonly #failover: FailoverReport;
  readonly #links = new Map<string, SecondaryLink>();
  #console: Outlet | null = null;
  #tap: Tap | null = null;
  #credentials: Credentials | null = null;
  /** That of the last link. */
  #lastToken: ChannelToken | undefined;
  #info: DomainInfo | null = null;
  #standbys: Standbys | null = null;
  #session: SecondarySession | null = null;
  #dialling: AbortController | null = null;
  #finish: () => void = () => undefined;
  #error: { code: string; message: string } | null = null;
  #dialFailure: string | null = null;
  #stopping: Promise<void> | null = null;

  constructor(
    config: SecondaryDomainConfig,
    dependencies: SecondaryDependencies,
    witness: Witness,
    reports: SecondaryReports,
    log: Logger,
  ) {
    this.name = config.name;
    this.#config = config;
    this.#dependencies = dependencies;
    this.#witness = witness;
    this.#reports = reports;
    this.#log = log;
    this.finished = new Promise((resolve) => (this.#finish = resolve));
    this.#tasks = new Tasks((error, what) => this.#log.warn({ err: error }, `could not ${what}`));
    this.#failover = new FailoverReport(this.name, (event) => this.#reports.failover$.next(event), log);
    this.#timers = new Timers((timer, lateMs) => this.#machine.send({ kind: 'timer', timer, lateMs }));
    this.#machine = new MachineRun(stepSecondary, initialSecondaryState(config.failover), (effect) =>
      this.#perform(effect),
    );
  }

  /** Makes the first domain. If that fails, this domain has failed and the others go on. */
  async open(): Promise<void> {
    const { output, primary } = this.#config;
    try {
      this.#credentials = new Credentials(this.#config, new URL(primary).hostname, this.#log);
      const own = this.#dependencies.openConsole?.(this.#config);
      this.#console = await openConsole(output.console, own, this.#log);
      this.#tap = output.tap === undefined ? null : await Tap.open(output.tap, this.#log);
      this.#standbys = new Standbys({
        open: () => this.#dependencies.openTarget(this.#config),
        console: this.#console,
        tap: this.#tap,
        limitBytes: output.limitBytes,
        ended: (was, event) => this.#domainEvent(was, event),
        stopped: () => this.#stopped(),
        log: this.#log,
      });
      this.#info = await (await this.#standbys.prepare()).info();
    } catch (error) {
      this.#failed(asError(error), 'no domain can be made');
      this.#machine.send({ kind: 'domain-failed', code: codeOf(error) });
    }
  }

  /** Opens the files of the domain's output anew, and reads the certificates for the next dial. */
  async reload(): Promise<readonly Reloaded[]> {
    const { output } = this.#config;
    const outputs = [
      { file: consoleFile(output.console), output: this.#console },
      { file: output.tap, output: this.#tap },
    ];
    const [reopened, read = []] = await Promise.all([
      reopenAll(outputs, this.#log),
      this.#credentials?.reload(),
    ]);
    return [...reopened, ...read];
  }

  start(): void {
    this.#machine.send({ kind: 'start' });
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  status(): DomainStatus {
    const { state } = this.#machine;
    const session = this.#session;
    const link = session ? this.#links.get(session.streamUuid) : undefined;
    return {
      domain: this.name,
      role: state.role,
      link: secondaryLinkState(state),
      peer: link?.peer ?? null,
      streamUuid: state.session?.streamUuid ?? state.held?.streamUuid ?? session?.streamUuid ?? null,
      epochSeen: session?.epochAcknowledged ?? -1,
      epochAcknowledged: session?.epochAcknowledged ?? -1,
      epochCommitted: session?.epochCommitted ?? -1,
      acknowledgedAtMs: session?.acknowledgedAtMs ?? null,
      bufferedBytes: state.session ? (session?.bufferedBytes ?? 0) : 0,
      heldOutputBytes: this.#standbys?.held?.gate.heldBytes ?? 0,
      stoppedBy: this.#stoppedBy,
      error: this.#error,
      certificates: this.#credentials?.expiries ?? [],
    };
  }

  /** That of a domain which runs elsewhere is told there. */
  get #stoppedBy(): string | null {
    const held = this.#standbys?.held;
    return held && this.#machine.state.role === 'active' ? held.stoppedBy : null;
  }

  #stopped(): void {
    if (this.#machine.state.role !== 'active') return;
    const stoppedBy = this.#stoppedBy;
    this.#transition(stoppedBy === null ? 'the domain runs again' : `the domain was stopped: ${stoppedBy}`);
  }

  #domainEvent(was: StandbyState, event: DomainEvent): void {
    if (was === 'spare') {
      // The next stream finds no spare, and makes a domain.
      this.#standbyLost(was, reasonOf(event));
      this.#tasks.run('destroy a domain', async () => this.#standbys?.discardSpare());
    } else if (was === 'filling') {
      this.#machine.send({ kind: 'filling-ended', reason: reasonOf(event) });
    } else if (event.kind === 'shutdown') {
      this.#machine.send({ kind: 'domain-shutdown' });
    } else {
      this.#machine.send({ kind: 'domain-crashed', reason: event.reason });
    }
  }

  #standbyLost(was: StandbyState, reason: string): void {
    const message = `the standby (${was}) was lost: ${reason}`;
    this.#log.warn({ was, reason }, 'the standby was lost, and will be replaced');
    if (was === 'held') this.#error = { code: 'STANDBY_LOST', message };
    this.#reports.standbyLosses$.next({ domain: this.name, was, reason, atMs: monotonicMs() });
  }

  #failoverImpossible(gone: Held, reason: string): void {
    const message = `the primary died before its lost standby was replaced; ${this.#error?.message ?? ''}`;
    this.#failover.impossible(gone, reason, message);
    this.#error = { code: NO_STANDBY, message };
  }

  #perform(effect: SecondaryEffect): void {
    switch (effect.kind) {
      case 'arm':
        this.#arm(effect.timer, effect.delayMs);
        return;
      case 'disarm':
        this.#timers.disarm(effect.timer);
        return;
      case 'dial':
        this.#dial(effect.dial, effect.role, effect.held);
        return;
      case 'abort-dial':
        this.#dialling?.abort();
        return;
      case 'restore':
        this.#restore(effect.streamUuid);
        return;
      case 'adopt':
        this.#error = null;
        this.#tasks.run('destroy a domain', async () => this.#standbys?.adopt());
        return;
      case 'discard-filling':
        this.#tasks.run('destroy a domain', async () => this.#standbys?.discardFilling());
        return;
      case 'discard-held':
        this.#tasks.run('destroy a domain', async () => this.#standbys?.discardHeld());
        return;
      case 'bye': {
        const link = this.#links.get(effect.streamUuid);
        this.#tasks.run('say goodbye', async () => link?.bye(effect.reason));
        return;
      }
      case 'drop-link':
        this.#links
          .get(effect.streamUuid)
          ?.destroy(new ChannelError(effect.code, effect.message, { domain: this.name }));
        return;
      case 'ask-witness':
        this.#askWitness();
        return;
      case 'take-over':
        this.#takeOver(effect.held, effect.reason);
        return;
      case 'report-completed':
        this.#failover.completed(effect.held);
        return;
      case 'report-failed':
        this.#failover.failed(effect.code, effect.message);
        return;
      case 'report-impossible':
        this.#failoverImpossible(effect.gone, effect.reason);
        return;
      case 'standby-lost':
        this.#standbyLost(effect.was, effect.reason);
        return;
      case 'transition':
        this.#transition(effect.reason);
        return;
      case 'finished':
        this.#finish();
        return;
    }
  }

  #arm(timer: SecondaryTimer, delayMs: number): void {
    // Spread, so that the secondaries of many domains do not come back in step.
    const spread = { firstMs: delayMs, maxMs: delayMs };
    this.#timers.arm(timer, timer === 'redial' ? backoffDelay(spread, 0, Math.random()) : delayMs);
  }

  #dial(number: number, role: 'standby' | 'active', held: Held | null): void {
    const info = this.#info;
    const credentials = this.#credentials;
    if (!info || !credentials) return;
    const abort = new AbortController();
    const { signal } = abort;
    this.#dialling = abort;
    this.#tasks.run('dial', async () => {
      const { tls, token } = credentials.shown;
      const lastToken = this.#lastToken;
      let link: SecondaryLink;
      try {
        link = await dialPrimary({ config: this.#config, tls, token, lastToken, info, role, held, signal });
      } catch (error) {
        if (signal.aborted) return;
        this.#dialFailed(asError(error), role);
        this.#machine.send({ kind: 'dial-failed', dial: number, code: codeOf(error) });
        return;
      }
      const { streamUuid, continuous } = link.welcome;
      if (signal.aborted) {
        // The link came while the dial was being given up.
        link.destroy(new ChannelError('INTERNAL', 'the dial was given up', { domain: this.name }));
        return;
      }
      if (this.#error !== null && isMisfit(this.#error.code)) this.#error = null;
      this.#dialFailure = null;
      this.#lastToken = token;
      this.#links.set(streamUuid, link);
      const standstillMs = sharesDisks(this.#config.hypervisor) ? standstillMsOf(link.welcome) : 0;
      this.#machine.send({ kind: 'dialled', dial: number, streamUuid, continuous, standstillMs });
      link.events$.subscribe((event) => this.#linkEvent(streamUuid, event));
    });
  }

  /** Said once for each reason, not for each attempt. What somebody has to mend is shown until a link stands. */
  #dialFailed(error: Error, role: 'standby' | 'active'): void {
    const { message } = error;
    const code = codeOf(error);
    const news = this.#dialFailure !== message;
    this.#dialFailure = message;
    if (!news) {
      this.#log.debug({ err: error }, 'dial failed');
    } else if (isMisfit(code) || (role === 'active' && code === 'UNKNOWN_STREAM')) {
      this.#error = { code, message };
      this.#log.warn({ err: error }, `refused: ${message}`);
    } else {
      this.#log.info({ code, reason: message }, 'no link to the primary');
    }
  }

  #linkEvent(streamUuid: string, event: LinkEvent): void {
    switch (event.kind) {
      case 'heard':
      case 'acknowledged':
        return;
      case 'bye':
        this.#machine.send({ kind: 'bye', streamUuid, reason: event.reason });
        return;
      case 'lost':
        this.#log.info({ code: event.error.code, reason: event.error.message }, 'link lost');
        this.#links.delete(streamUuid);
        this.#machine.send({ kind: 'lost', streamUuid, code: event.error.code });
        return;
    }
  }

  #restore(streamUuid: string): void {
    const link = this.#links.get(streamUuid);
    const standbys = this.#standbys;
    if (!link || !standbys) return;
    const session = new SecondarySession({
      name: this.name,
      link,
      bufferLimitBytes: this.#config.bufferBytes,
      log: this.#log,
      send: (event) => this.#sessionEvent(streamUuid, event),
      committed: (report) => this.#reports.commits$.next(report),
    });
    this.#session = session;
    this.#tasks.run('restore the domain', async () => {
      let standby: Standby;
      try {
        standby = await standbys.fill();
      } catch (error) {
        const err = nameDescriptorLimit(asError(error));
        this.#log[this.#stopping ? 'debug' : 'error']({ err }, 'no domain can be made');
        this.#machine.send({ kind: 'domain-failed', code: codeOf(error) });
        return;
      }
      standby.restored = session.run(standby.domain);
      await standby.restored;
    });
  }

  #sessionEvent(streamUuid: string, event: SessionEvent): void {
    // What somebody has to mend is shown until a checkpoint is held again.
    if (event.kind === 'restored' && event.code === 'BAD_CONTEXT') {
      this.#error = { code: 'STATE_REFUSED', message: event.message };
    }
    this.#machine.send({ ...event, streamUuid });
  }

  #askWitness(): void {
    this.#tasks.run('ask the witness', async () => {
      let granted = false;
      try {
        granted = (await this.#witness.acquire(this.name)) !== null;
      } catch (error) {
        this.#log.error({ err: error }, 'the witness cannot be asked');
      }
      this.#machine.send({ kind: 'witness', granted });
    });
  }

  #takeOver(held: Held, reason: string): void {
    const standby = this.#standbys?.held;
    if (!standby) return;
    this.#failover.started(held, reason, this.#session?.acknowledgedAtMs ?? null);
    this.#tasks.run('take over', async () => {
      try {
        await standby.takeOver();
      } catch (error) {
        this.#failed(asError(error), 'the domain does not start');
        const epochsBack = standby.domain.checkpointsBack ?? 0;
        const { message } = asError(error);
        this.#machine.send({ kind: 'start-failed', code: codeOf(error), message, epochsBack });
        return;
      }
      this.#error = null;
      this.#tasks.run('announce the domain', async () => standby.domain.announce?.());
      this.#machine.send({ kind: 'started', epochsBack: standby.domain.checkpointsBack ?? 0 });
    });
  }

  #failed(thrown: Error, what: string): void {
    const error = nameDescriptorLimit(thrown);
    this.#error = { code: codeOf(error), message: error.message };
    this.#log.error({ err: error }, what);
  }

  #transition(reason: string): void {
    const { role, link, streamUuid } = this.status();
    this.#log.info({ role, link, streamUuid, reason }, `${role}, ${link}`);
    this.#reports.transitions$.next({ domain: this.name, role, link, reason, atMs: monotonicMs() });
  }

  async #stop(): Promise<void> {
    this.#machine.send({ kind: 'stop' });
    this.#tasks.run('destroy a domain', async () => this.#standbys?.close());
    // A link whose domain has ended waits for the primary to close it.
    for (const link of this.#links.values()) {
      this.#tasks.run('say goodbye', () => link.bye('shutdown'));
    }
    if (!(await this.#tasks.settle(STOP_TIMEOUT_MS))) {
      this.#log.warn('the domain did not come to rest in time');
    }
    this.#credentials?.close();
    this.#timers.end();
    this.#machine.end();
    await this.#tap?.close();
    this.#console?.close();
  }
}
