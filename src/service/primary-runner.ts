// One domain of the primary: the machine's events gathered, its effects carried out.
//
//   timers, beat ──┐                              ┌─▶ saver (primary-saver.ts)
//   links (offer) ─┼─▶ events ─▶ step ─▶ effects ─┼─▶ gate, domain
//   domain, saver ─┘                              └─▶ links, reports

import type { Subject } from 'rxjs';
import { ChannelError, type DomainOffer, type LinkEvent, type PrimaryLink } from '../channel/contract.js';
import { sharesDisks } from '../config/hypervisor.js';
import type { PrimaryDomainConfig } from '../config/schema.js';
import { asError, codeOf } from '../errors.js';
import type { DomainEvent, Leave, MachineChange } from '../hypervisor/port.js';
import type { OutputGate } from '../output/gate.js';
import { makeSlabs, type Slab } from '../save/slab.js';
import { monotonicMs } from './clock.js';
import type { PrimaryDependencies } from './dependencies.js';
import { nameDescriptorLimit } from './descriptors.js';
import type { Logger } from './log.js';
import { MachineRun } from './machine.js';
import { OutputNotice } from './output-notice.js';
import { openPrimaryDomain, type PrimaryDomain } from './primary-domain.js';
import { stepPrimary } from './primary-machine.js';
import { PrimarySaver } from './primary-saver.js';
import {
  initialPrimaryState,
  primaryLinkState,
  type PrimaryEffect,
  type PrimaryEvent,
  type PrimaryState,
  type PrimaryTimer,
} from './primary-state.js';
import { judgeClaim, judgeHello, newInstance } from './primary-welcome.js';
import type { Reloaded } from './reload.js';
import type { CheckpointReport, DomainStatus, TransitionReport } from './reports.js';
import { beatMsOf, stallMsOf } from './shared-disks.js';
import { InOrder, Tasks } from './tasks.js';
import { Timers } from './timers.js';

type Unstamped<Event> = Event extends unknown ? Omit<Event, 'atMs'> : never;

/** Where the runner reports to; shared by all domains of a service. */
export interface PrimaryReports {
  readonly checkpoints$: Subject<CheckpointReport>;
  readonly transitions$: Subject<TransitionReport>;
}

const STOP_TIMEOUT_MS = 5000;

export class PrimaryRunner {
  readonly name: string;
  readonly finished: Promise<void>;

  readonly #config: PrimaryDomainConfig;
  readonly #dependencies: PrimaryDependencies;
  readonly #reports: PrimaryReports;
  readonly #log: Logger;
  readonly #machine: MachineRun<PrimaryState, PrimaryEvent, PrimaryEffect>;
  readonly #timers = new Timers<PrimaryTimer>((timer) => this.#send({ kind: 'timer', timer }));
  readonly #tasks: Tasks;
  readonly #gateOrder = new InOrder();
  readonly #links = new Map<string, PrimaryLink>();
  /** Whether its hypervisor knows who may take the domain over. */
  #exposed: Promise<void> = Promise.resolve();
  readonly #instance = newInstance();
  readonly #outputNotice: OutputNotice;
  readonly #beat: NodeJS.Timeout;
  #opened: PrimaryDomain | null = null;
  #saver: PrimarySaver | null = null;
  /** What checkpoints are captured into, in one stream after another; made for the first. */
  #slabs: readonly Slab[] | null = null;
  #withdraw: (() => void) | null = null;
  #finish: () => void = () => undefined;
  #error: { code: string; message: string } | null = null;
  #acknowledgedAtMs: number | null = null;
  #stoppedBy: string | null = null;
  #stopping: Promise<void> | null = null;

  constructor(
    config: PrimaryDomainConfig,
    dependencies: PrimaryDependencies,
    reports: PrimaryReports,
    log: Logger,
  ) {
    this.name = config.name;
    this.#config = config;
    this.#dependencies = dependencies;
    this.#reports = reports;
    this.#log = log;
    this.#outputNotice = new OutputNotice(config.output.whenUnprotected, log);
    this.finished = new Promise((resolve) => (this.#finish = resolve));
    this.#tasks = new Tasks((error, what) => {
      // Of a domain that ends with us nothing gets out any more; how it ended is told as such.
      const over = codeOf(error) === 'DOMAIN_GONE' && this.#opened?.domain.leave === undefined;
      this.#log[over ? 'debug' : 'warn']({ err: error }, `could not ${what}`);
    });
    // The secondary takes over after heartbeat.timeoutMs of silence at the earliest.
    const { timeoutMs } = config.heartbeat;
    const settings = {
      intervalMs: config.checkpoint.intervalMs,
      windowEpochs: config.checkpoint.windowEpochs,
      acknowledgeTimeoutMs: config.checkpoint.acknowledgeTimeoutMs,
      whenUnprotected: config.output.whenUnprotected,
      startWithSecondary: config.start === 'with-secondary',
      stallMs: stallMsOf(timeoutMs),
      standstill: sharesDisks(config.hypervisor) ? { silenceMs: timeoutMs } : null,
    };
    this.#machine = new MachineRun(stepPrimary, initialPrimaryState(settings, monotonicMs()), (effect) =>
      this.#perform(effect),
    );
    this.#beat = setInterval(() => this.#onBeat(), beatMsOf(timeoutMs));
  }

  /** Makes the domain. If that fails, this domain has failed and the others go on. */
  async open(): Promise<void> {
    try {
      const hooks = {
        pressure: (on: boolean) => this.#send({ kind: 'pressure', on }),
        event: (event: DomainEvent) => this.#domainEvent(event),
        // The machine finds out with its next event.
        mayLeaveUntilMs: () => this.#machine.state.lastAtMs + this.#machine.state.settings.stallMs,
        machineChange: (change: MachineChange) => this.#machineChanged(change),
        stoppedBy: (stoppedBy: string | null) => this.#stoppedByOthers(stoppedBy),
      };
      this.#opened = await openPrimaryDomain(this.#config, this.#dependencies, hooks, this.#log);
    } catch (error) {
      this.#fail(asError(error), 'the domain cannot be made');
    }
  }

  /** Offers the domain for protection: `offer` is the listener's. */
  offer(offer: (offer: DomainOffer) => () => void): void {
    if (this.#machine.state.role !== 'primary') return;
    this.#withdraw = offer({
      domain: this.name,
      secondaryNames: this.#config.secondaryNames,
      welcome: (hello) =>
        judgeHello(hello, this.#config, this.#opened?.info, this.#machine.state, this.#instance),
      linked: (link) => this.#linked(link),
      fenced: (hello) => {
        judgeClaim(hello, this.name, this.#machine.state);
        this.#send({ kind: 'fenced' });
      },
    });
  }

  start(): void {
    const { domain, info } = this.#opened ?? {};
    this.#send({ kind: 'start', orphaned: domain?.orphaned ?? false, running: info?.state === 'running' });
    this.#tellOutput();
  }

  /** Opens the files of the domain's output anew. */
  async reload(): Promise<readonly Reloaded[]> {
    return (await this.#opened?.reopen()) ?? [];
  }

  requestCheckpoint(): void {
    this.#send({ kind: 'request' });
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  status(): DomainStatus {
    const { state } = this.#machine;
    const stream = state.stream ?? state.lastStream;
    const link = state.stream ? this.#links.get(state.stream.streamUuid) : undefined;
    return {
      domain: this.name,
      role: state.role,
      link: primaryLinkState(state),
      peer: link?.peer ?? null,
      streamUuid: stream?.streamUuid ?? null,
      epochSeen: stream?.captured ?? -1,
      epochAcknowledged: stream?.acknowledged ?? -1,
      epochCommitted: -1,
      acknowledgedAtMs: this.#acknowledgedAtMs,
      bufferedBytes: link?.bufferedBytes ?? 0,
      heldOutputBytes: this.#opened?.gate.heldBytes ?? 0,
      stoppedBy: this.#stoppedBy,
      error: this.#error,
    };
  }

  #send(event: Unstamped<PrimaryEvent>): void {
    this.#machine.send({ ...event, atMs: monotonicMs() });
  }

  #fail(thrown: Error, what: string): void {
    const error = nameDescriptorLimit(thrown);
    this.#error = { code: codeOf(error), message: error.message };
    this.#log.error({ err: error }, what);
    this.#send({ kind: 'domain-failed', code: codeOf(error) });
  }

  #domainEvent(event: DomainEvent): void {
    if (event.kind === 'shutdown') this.#send({ kind: 'domain-shutdown' });
    else this.#send({ kind: 'domain-crashed', reason: event.reason });
  }

  #onBeat(): void {
    this.#send({ kind: 'beat' });
    const { pressure, role, stopped } = this.#machine.state;
    if (!pressure || stopped || role !== 'primary') return;
    // Somebody else may have let it run.
    this.#tasks.run('stop the domain', async () => this.#opened?.stop.add('pressure'));
  }

  #machineChanged({ inventory, message }: MachineChange): void {
    if (this.#opened) this.#opened.info = { ...this.#opened.info, inventory };
    this.#error = { code: 'MACHINE_CHANGED', message };
    this.#log.error(message);
    this.#send({ kind: 'machine-changed', message });
  }

  #stoppedByOthers(stoppedBy: string | null): void {
    const before = this.#stoppedBy;
    this.#stoppedBy = stoppedBy;
    if (before === stoppedBy) return;
    if (stoppedBy === null) this.#log.info('the domain runs again');
    else
      this.#log.warn({ stoppedBy }, `the domain was stopped (${stoppedBy}), not by Romulus, and is left so`);
    this.#transition(stoppedBy === null ? 'the domain runs again' : `the domain was stopped: ${stoppedBy}`);
  }

  #linked(link: PrimaryLink): void {
    const { streamUuid } = link;
    if (this.#error?.code === 'MACHINE_CHANGED') this.#error = null;
    this.#links.set(streamUuid, link);
    this.#send({ kind: 'linked', streamUuid });
    link.events$.subscribe((event) => this.#linkEvent(streamUuid, event));
  }

  #linkEvent(streamUuid: string, event: LinkEvent): void {
    switch (event.kind) {
      case 'heard':
        this.#send({ kind: 'heard', streamUuid });
        return;
      case 'acknowledged':
        this.#send({ kind: 'acknowledged', streamUuid, epoch: event.epoch });
        return;
      case 'bye':
        this.#send({ kind: 'bye', streamUuid, reason: event.reason });
        return;
      case 'lost':
        this.#linkLost(event.error);
        this.#send({ kind: 'lost', streamUuid, code: event.error.code });
        this.#links.delete(streamUuid);
        return;
    }
  }

  #linkLost({ code, message }: ChannelError): void {
    const refused = code === 'STATE_REFUSED';
    this.#log[refused ? 'warn' : 'info']({ code, reason: message }, 'link lost');
    // Shown until a checkpoint is acknowledged again.
    // What the machine has become says more.
    if (refused && this.#error?.code !== 'MACHINE_CHANGED') this.#error = { code, message };
  }

  #perform(effect: PrimaryEffect): void {
    switch (effect.kind) {
      case 'arm':
        this.#timers.arm(effect.timer, effect.delayMs);
        return;
      case 'disarm':
        this.#timers.disarm(effect.timer);
        return;
      case 'release':
        // What is not released now is released with the next epoch that is acknowledged.
        this.#gate('release output', async (gate) => {
          if (monotonicMs() <= effect.untilMs) await gate.release(effect.epoch);
        });
        return;
      case 'hold':
        this.#gate('hold output', (gate) => gate.hold());
        return;
      case 'pass':
        this.#gate('let output pass', (gate) => gate.pass());
        return;
      case 'restart-gate':
        this.#gate('restart the gate', (gate) => gate.restart());
        return;
      case 'discard':
        // At once, not after whatever else the gate still has to do.
        this.#tasks.run('discard output', async () => this.#opened?.gate.discard());
        return;
      case 'start-domain':
        this.#startDomain();
        return;
      case 'pause-domain':
        this.#log.warn(
          { heldBytes: this.#opened?.gate.heldBytes, waitingForConsole: this.#opened?.waitingBytes },
          'output over its limit: domain stopped',
        );
        this.#tasks.run('stop the domain', async () => {
          await this.#opened?.stop.add('pressure');
          // It has said all that it will: a checkpoint from here on lets out what can be let out.
          this.requestCheckpoint();
        });
        return;
      case 'unpause-domain':
        this.#tasks.run('let the domain go on', async () => this.#opened?.stop.remove('pressure'));
        return;
      case 'halt-domain':
        this.#halt();
        return;
      case 'unhalt-domain':
        this.#log.info('the secondary stands by: the domain goes on');
        this.#tasks.run('let the domain go on', async () => this.#opened?.stop.remove('unlinked'));
        return;
      case 'expose':
        this.#expose(effect.on);
        return;
      case 'let-go':
        this.#tasks.run('let the domain go', () => this.#letGo(effect.how));
        return;
      case 'save':
        this.#save(effect.streamUuid);
        return;
      case 'decide':
        this.#saver?.decide(effect.decision);
        return;
      case 'abandon':
        this.#saver?.abandon();
        return;
      case 'bye': {
        const { streamUuid, reason } = effect;
        const link = this.#links.get(streamUuid);
        this.#tasks.run('say goodbye', async () => {
          const confirmed = (await link?.bye(reason)) ?? false;
          this.#send({ kind: 'goodbye', streamUuid, confirmed });
        });
        return;
      }
      case 'drop-link':
        this.#links
          .get(effect.streamUuid)
          ?.destroy(new ChannelError(effect.code, effect.message, { domain: this.name }));
        return;
      case 'withdraw':
        this.#withdraw?.();
        return;
      case 'report':
        this.#acknowledgedAtMs = monotonicMs();
        if (this.#error?.code === 'STATE_REFUSED') this.#error = null;
        this.#saver?.report(effect.epoch, this.#acknowledgedAtMs);
        return;
      case 'transition':
        this.#transition(effect.reason);
        return;
      case 'finished':
        this.#finish();
        return;
    }
  }

  #gate(what: string, work: (gate: OutputGate) => Promise<void>): void {
    const gate = this.#opened?.gate;
    if (gate) this.#tasks.run(what, () => this.#gateOrder.do(() => work(gate)));
  }

  #startDomain(): void {
    const domain = this.#opened?.domain;
    if (!domain) return;
    this.#tasks.run('start the domain', async () => {
      try {
        await domain.start();
      } catch (error) {
        this.#fail(asError(error), 'the domain does not start');
      }
    });
  }

  /** One that cannot be stopped is let go as one that has failed: ended, or stopped by whatever means are left. */
  #halt(): void {
    this.#log.warn(
      'the secondary is out of sight and may take the domain over: it stands still (sharedDisks)',
    );
    this.#tasks.run('stop the domain', async () => {
      try {
        await this.#opened?.stop.add('unlinked');
      } catch (error) {
        // How one that is gone has ended it says itself.
        if (codeOf(error) !== 'DOMAIN_GONE') this.#fail(asError(error), 'the domain does not stand still');
      }
    });
  }

  #expose(on: boolean): void {
    const before = this.#exposed.catch(() => undefined);
    const exposed = before.then(() => this.#opened?.domain.expose?.(on));
    this.#exposed = exposed;
    this.#tasks.run('tell the hypervisor whether a secondary may take the domain over', () => exposed);
  }

  async #letGo(how: Leave): Promise<void> {
    const opened = this.#opened;
    if (!opened) return;
    const { domain, gate, stop } = opened;
    if (!domain.leave) {
      await domain.destroy();
      return;
    }
    const attempt = (what: string, work: () => Promise<void>): Promise<void> =>
      work().catch((error: unknown) => this.#log.warn({ err: error }, `could not ${what}`));
    if (how !== 'stopped') {
      // It goes on: whoever has stopped it lets it run first.
      await this.#saver?.ended;
      await attempt('let the domain go on', () => stop.remove('pressure'));
    }
    if (how === 'free') await attempt('let the domain go on', () => stop.remove('unlinked'));
    if (how === 'free') await attempt('let output pass', () => this.#gateOrder.do(() => gate.pass()));
    for (const advice of await domain.leave(how)) this.#log.warn({ how }, advice);
  }

  #save(streamUuid: string): void {
    const link = this.#links.get(streamUuid);
    const opened = this.#opened;
    if (!link || !opened) return;
    // Not the saver before itself: the functions below would keep it, and it the one before it, for ever.
    const released = this.#saver?.released;
    const { windowEpochs, slabBytes } = this.#config.checkpoint;
    const saver = new PrimarySaver({
      config: this.#config,
      opened,
      gateOrder: this.#gateOrder,
      link,
      slabs: () => (this.#slabs ??= makeSlabs(windowEpochs + 1, slabBytes)),
      log: this.#log,
      send: (event) => {
        if (event.kind === 'save-failed' && event.code === 'HUNG') {
          this.#error = { code: event.code, message: event.message };
          this.#slabs = null; // the hypervisor may still copy into them
        }
        this.#send({ ...event, streamUuid });
      },
      reported: (report) => this.#reports.checkpoints$.next(report),
      ready: this.#exposed,
    });
    this.#saver = saver;
    this.#tasks.run('save the domain', async () => {
      // A domain has one dirty log and one set of slabs: the saver before, and its link, must be done with them.
      await released;
      await saver.run();
    });
  }

  #transition(reason: string): void {
    const { role, link, streamUuid } = this.status();
    this.#log.info({ role, link, streamUuid, reason }, `${role}, ${link}`);
    this.#tellOutput();
    this.#reports.transitions$.next({ domain: this.name, role, link, reason, atMs: monotonicMs() });
  }

  #tellOutput(): void {
    const { state } = this.#machine;
    if (state.role === 'primary' && !state.stopped) this.#outputNotice.tell(primaryLinkState(state));
  }

  async #stop(): Promise<void> {
    this.#send({ kind: 'stop' });
    if (!(await this.#tasks.settle(STOP_TIMEOUT_MS))) {
      this.#log.warn('the domain did not come to rest in time');
    }
    await this.#opened?.close();
    clearInterval(this.#beat);
    this.#timers.end();
    this.#machine.end();
  }
}
