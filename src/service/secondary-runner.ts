// One domain of the secondary: the machine's events gathered, its effects carried out.
//
//   timers ─────────┐                              ┌─▶ dial, links
//   dials, links ───┼─▶ events ─▶ step ─▶ effects ─┼─▶ restorer (secondary-session.ts), domains
//   restorer ───────┘                              └─▶ takeover, reports
//
// Up to three domains are owned: a spare (made ahead, it also tells what the hello says), the one that a stream is
// being restored into, and the one that is held to fail over to.

import type { Subject } from 'rxjs';
import { ChannelError, type LinkEvent, type SecondaryLink } from '../channel/contract.js';
import { dial } from '../channel/dialer.js';
import type { ChannelTls } from '../channel/security.js';
import type { SecondaryDomainConfig } from '../config/schema.js';
import { asError, codeOf } from '../errors.js';
import { takeOver } from '../failover/takeover.js';
import type { Witness } from '../failover/witness.js';
import type { DomainInfo } from '../hypervisor/port.js';
import { VERSION } from '../version.js';
import { monotonicMs } from './clock.js';
import { openConsole, openFile, type ConsoleWriter } from './console.js';
import { readTls, type SecondaryDependencies } from './dependencies.js';
import type { Logger } from './log.js';
import { MachineRun } from './machine.js';
import type {
  CommitReport,
  DomainStatus,
  FailoverEvent,
  FailoverStarted,
  TransitionReport,
} from './reports.js';
import { stepSecondary } from './secondary-machine.js';
import { SecondarySession } from './secondary-session.js';
import {
  initialSecondaryState,
  secondaryLinkState,
  type Held,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondaryState,
  type SecondaryTimer,
} from './secondary-state.js';
import { Standby } from './standby.js';
import { Tasks } from './tasks.js';
import { Timers } from './timers.js';

/** Where the runner reports to; shared by all domains of a service. */
export interface SecondaryReports {
  readonly commits$: Subject<CommitReport>;
  readonly failover$: Subject<FailoverEvent>;
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
  readonly #links = new Map<string, SecondaryLink>();
  #console: ConsoleWriter | null = null;
  #tap: ConsoleWriter | null = null;
  #tls: ChannelTls | undefined;
  #info: DomainInfo | null = null;
  #spare: Standby | null = null;
  #filling: Standby | null = null;
  #held: Standby | null = null;
  #session: SecondarySession | null = null;
  #dialling: AbortController | null = null;
  #failover: FailoverStarted | null = null;
  #finish: () => void = () => undefined;
  #error: { code: string; message: string } | null = null;
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
    this.#timers = new Timers((timer) => this.#machine.send({ kind: 'timer', timer }));
    this.#machine = new MachineRun(stepSecondary, initialSecondaryState(config.failover), (effect) =>
      this.#perform(effect),
    );
  }

  /** Makes the first domain. If that fails, this domain has failed and the others go on. */
  async open(): Promise<void> {
    const { output, tls } = this.#config;
    try {
      this.#tls = readTls(tls);
      this.#console = this.#dependencies.openConsole?.(this.#config) ?? openConsole(output.console);
      this.#tap = output.tap === undefined ? null : openFile(output.tap);
      this.#spare = await this.#make();
      this.#info = await this.#spare.domain.info();
    } catch (error) {
      this.#failed(asError(error), 'no domain can be made');
      this.#machine.send({ kind: 'domain-failed', code: codeOf(error) });
    }
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
      heldOutputBytes: this.#held?.gate.heldBytes ?? 0,
      error: this.#error,
    };
  }

  async #make(): Promise<Standby> {
    const domain = await this.#dependencies.openTarget(this.#config);
    const none = { write: () => undefined, close: () => undefined };
    return new Standby(
      domain,
      this.#console ?? none,
      this.#tap,
      (event) => {
        // Domains that are being filled or kept do not run: only the one taken over has anything to say.
        if (event.kind === 'shutdown') this.#machine.send({ kind: 'domain-shutdown' });
        else this.#machine.send({ kind: 'domain-crashed', reason: event.reason });
      },
      this.#log,
    );
  }

  #perform(effect: SecondaryEffect): void {
    switch (effect.kind) {
      case 'arm':
        this.#timers.arm(effect.timer, effect.delayMs);
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
        this.#destroy(this.#held);
        this.#held = this.#filling;
        this.#filling = null;
        return;
      case 'discard-filling':
        this.#destroy(this.#filling);
        this.#filling = null;
        return;
      case 'discard-held':
        this.#destroy(this.#held);
        this.#held = null;
        return;
      case 'bye': {
        const link = this.#links.get(effect.streamUuid);
        this.#tasks.run('say goodbye', async () => link?.bye(effect.reason));
        return;
      }
      case 'drop-link':
        this.#links
          .get(effect.streamUuid)
          ?.destroy(new ChannelError(effect.code, 'the secondary gives the link up', { domain: this.name }));
        return;
      case 'ask-witness':
        this.#askWitness();
        return;
      case 'take-over':
        this.#takeOver(effect.held, effect.reason);
        return;
      case 'report-completed':
        this.#completed();
        return;
      case 'report-failed':
        this.#reportFailed(effect.code, effect.message);
        return;
      case 'transition':
        this.#transition(effect.reason);
        return;
      case 'finished':
        this.#finish();
        return;
    }
  }

  #dial(number: number, role: 'standby' | 'active', held: Held | null): void {
    const { primary, plaintext, failover } = this.#config;
    const info = this.#info;
    if (!info) return;
    const abort = new AbortController();
    this.#dialling = abort;
    this.#tasks.run('dial', async () => {
      let link: SecondaryLink;
      try {
        link = await dial({
          url: primary,
          plaintext,
          tls: this.#tls,
          connectTimeoutMs: failover.connectTimeoutMs,
          handshakeTimeoutMs: failover.connectTimeoutMs,
          software: VERSION,
          signal: abort.signal,
          hello: {
            domain: this.name,
            hypervisor: info.hypervisor,
            domainType: info.type,
            p2mSize: info.p2mSize,
            role,
            streamUuid: held?.streamUuid ?? null,
            epoch: held?.epoch ?? null,
          },
        });
      } catch (error) {
        if (abort.signal.aborted) return;
        this.#log.debug({ err: error }, 'dial failed');
        this.#machine.send({ kind: 'dial-failed', dial: number, code: codeOf(error) });
        return;
      }
      const { streamUuid, continuous } = link.welcome;
      if (abort.signal.aborted) {
        // The link came while the dial was being given up.
        link.destroy(new ChannelError('INTERNAL', 'the dial was given up', { domain: this.name }));
        return;
      }
      this.#links.set(streamUuid, link);
      this.#machine.send({ kind: 'dialled', dial: number, streamUuid, continuous });
      link.events$.subscribe((event) => this.#linkEvent(streamUuid, event));
    });
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
    if (!link) return;
    const session = new SecondarySession({
      name: this.name,
      link,
      bufferLimitBytes: this.#config.bufferBytes,
      log: this.#log,
      send: (event) => this.#machine.send({ ...event, streamUuid }),
      committed: (report) => this.#reports.commits$.next(report),
    });
    this.#session = session;
    const spare = this.#spare;
    this.#spare = null;
    this.#tasks.run('restore the domain', async () => {
      let standby: Standby;
      try {
        standby = spare ?? (await this.#make());
      } catch (error) {
        this.#log.error({ err: error }, 'no domain can be made');
        this.#machine.send({ kind: 'domain-failed', code: codeOf(error) });
        return;
      }
      this.#filling = standby;
      standby.restored = session.run(standby.domain);
      await standby.restored;
    });
  }

  #destroy(standby: Standby | null): void {
    if (standby) this.#tasks.run('destroy a domain', () => standby.destroy());
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
    const standby = this.#held;
    if (!standby) return;
    const { streamUuid, epoch } = held;
    const started: FailoverStarted = {
      phase: 'started',
      domain: this.name,
      streamUuid,
      epoch,
      reason,
      atMs: monotonicMs(),
    };
    this.#failover = started;
    this.#log.warn({ streamUuid, epoch, reason }, 'failover: taking the domain over');
    this.#reports.failover$.next(started);
    this.#tasks.run('take over', async () => {
      try {
        await takeOver(standby.domain, standby.gate);
      } catch (error) {
        this.#failed(asError(error), 'the domain does not start');
        this.#machine.send({ kind: 'start-failed', code: codeOf(error), message: asError(error).message });
        return;
      }
      this.#machine.send({ kind: 'started' });
    });
  }

  #completed(): void {
    const started = this.#failover;
    if (!started) return;
    const atMs = monotonicMs();
    const takeoverSeconds = (atMs - started.atMs) / 1000;
    this.#log.warn({ epoch: started.epoch, takeoverSeconds }, 'failover: the domain runs here');
    this.#reports.failover$.next({ ...started, phase: 'completed', atMs, takeoverSeconds });
  }

  #reportFailed(code: string, message: string): void {
    const started = this.#failover;
    if (!started) return;
    this.#reports.failover$.next({
      ...started,
      phase: 'failed',
      atMs: monotonicMs(),
      error: { code, message },
    });
  }

  #failed(error: Error, what: string): void {
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
    this.#destroy(this.#spare);
    this.#spare = null;
    // A link whose domain has ended waits for the primary to close it.
    for (const link of this.#links.values()) {
      this.#tasks.run('say goodbye', () => link.bye('shutdown'));
    }
    if (!(await this.#tasks.settle(STOP_TIMEOUT_MS))) {
      this.#log.warn('the domain did not come to rest in time');
    }
    this.#timers.end();
    this.#machine.end();
    this.#tap?.close();
    this.#console?.close();
  }
}
