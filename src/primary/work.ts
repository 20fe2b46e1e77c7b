// What is done to one domain: its gate, its running and standing still, its saver. Each piece of work is begun when it is
// subscribed to, and is over when its Observable completes; a failure is logged, and told as an event where the domain
// cannot go on without it.

import { EMPTY, concat, defer, ignoreElements, of, type Observable } from 'rxjs';
import type { PrimaryLink } from '../channel/contract.js';
import type { PrimaryDomainConfig } from '../config/agent.js';
import { asError, codeOf } from '../errors.js';
import { Work } from '../flow/work.js';
import type { Leave } from '../hypervisor/port.js';
import { nameDescriptorLimit } from '../report/descriptors.js';
import type { Logger } from '../report/log.js';
import type { CheckpointReport, DomainStatus, Synchronisation } from '../report/reports.js';
import { makeSlabs, type Slab } from '../save/slab.js';
import { valueAt } from '../stream/bounds.js';
import { Capture } from './capture.js';
import type { LifeEvent } from './life-state.js';
import { within } from './limits.js';
import type { Release } from './ledger.js';
import { Shared } from './shared.js';
import { SharedDisks } from './shared-disks.js';
import type { Saver } from './stream.js';
import type { World } from './world.js';

export class DomainWork {
  readonly tasks: Work;

  #world: World | null = null;
  #shared: Shared | null = null;
  #disks: SharedDisks | null = null;
  readonly #config: PrimaryDomainConfig;
  readonly #log: Logger;
  /** Whether its hypervisor knows who may take the domain over. */
  #exposed: Promise<void> = Promise.resolve();
  #capture: Capture | null = null;
  /** What checkpoints are captured into, in one stream after another; made for the first. */
  #slabs: readonly Slab[] | null = null;

  constructor(config: PrimaryDomainConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.tasks = new Work((err, what) => {
      // Of a domain that ends with us nothing gets out any more; how it ended is told as such.
      const over = codeOf(err) === 'DOMAIN_GONE' && this.world?.domain.leave === undefined;
      log[over ? 'debug' : 'warn']({ err }, `could not ${what}`);
    });
  }

  /** Null until the domain is made. */
  get world(): World | null {
    return this.#world;
  }

  /** What a standby has of it. */
  get shared(): Shared | null {
    return this.#shared;
  }

  /** The same of its disks; null: none are replicated. */
  get disks(): SharedDisks | null {
    return this.#disks;
  }

  get synchronisation(): Synchronisation | null {
    return this.#capture?.synchronisation ?? null;
  }

  /** What the status says of its disks; nothing where none is replicated. */
  ofDisks(isReplicating: boolean): Pick<DomainStatus, 'disks'> {
    const source = this.#world?.domain.disks;
    if (source === undefined) return {};
    const { disks, figures } = source;
    return {
      disks: figures.map(({ requests, writtenBytes, journalBytes, lost }, index) => {
        const { id, bytes } = valueAt(disks, index);
        const inStep = isReplicating && lost === null;
        return { disk: id, bytes, writeRequests: requests, writtenBytes, journalBytes, inStep, lost };
      }),
    };
  }

  /** The world's hooks are called from here on. */
  made(world: World): void {
    this.#world = world;
    const { domain } = world;
    this.#shared = new Shared(domain);
    this.#disks = domain.disks ? new SharedDisks(domain.disks) : null;
    world.listen();
  }

  /** The domain is of no use any more, and why. */
  failed(thrown: unknown, what: string): LifeEvent {
    const error = nameDescriptorLimit(asError(thrown));
    this.#log.error({ err: error }, what);
    return { kind: 'domain-failed', code: codeOf(error), message: error.message };
  }

  /** Of its gate, one after another; discard at once. */
  gate(ask: 'hold' | 'pass' | 'restart' | 'discard'): Observable<never> {
    return defer(() => this.world?.gate[ask]() ?? EMPTY).pipe(ignoreElements());
  }

  /** domain-failed, if it does not start. */
  start(): Observable<LifeEvent> {
    return this.#orFailed(
      'start the domain',
      async (world) => {
        if (!world.inherited) await world.domain.start();
      },
      (error) => this.failed(error, 'the domain does not start'),
    );
  }

  /**
   * A secondary may run it, so it must stand still: domain-failed, if it does not. One that cannot be stopped is let go as one that has failed: ended, or stopped by
   * whatever means are left.
   */
  halt(): Observable<LifeEvent> {
    this.#log.warn(
      'the secondary is out of sight and may take the domain over: it stands still (sharedDisks)',
    );
    return this.#orFailed(
      'stop the domain',
      (world) => world.stop.add('unlinked'),
      // How one that is gone has ended it says itself.
      (error) =>
        codeOf(error) === 'DOMAIN_GONE' ? null : this.failed(error, 'the domain does not stand still'),
    );
  }

  unhalt(): Observable<never> {
    this.#log.info('the secondary stands by: the domain goes on');
    return this.tasks.attempt('let the domain go on', async () => this.world?.stop.remove('unlinked'));
  }

  /** It says more than is let out, and must stop talking. `again`: somebody else may have let it run. */
  pause(again: boolean): Observable<never> {
    if (!again) {
      this.#log.warn(
        { heldBytes: this.world?.gate.heldBytes, waitingForConsole: this.world?.waitingBytes },
        'output over its limit: domain stopped',
      );
    }
    return this.tasks.attempt('stop the domain', async () => this.world?.stop.add('pressure'));
  }

  unpause(): Observable<never> {
    return this.tasks.attempt('let the domain go on', async () => this.world?.stop.remove('pressure'));
  }

  /** It stands still since its last checkpoint, and is ours still. */
  handBack(): Observable<never> {
    return this.tasks.attempt('let the domain go on', async () => {
      // A capture that was given up may be about to stop it.
      await this.#capture?.close();
      await this.world?.stop.remove('handed-over');
    });
  }

  expose(on: boolean): Observable<never> {
    const before = this.#exposed.catch(() => undefined);
    const exposed = before.then(() => this.world?.domain.expose?.(on));
    this.#exposed = exposed;
    return this.tasks.attempt(
      'tell the hypervisor whether a secondary may take the domain over',
      () => exposed,
    );
  }

  release(release: Release): void {
    this.world?.gate.release(release);
  }

  saver(link: PrimaryLink | undefined, reported: (report: CheckpointReport) => void): Saver {
    const { world, shared } = this;
    if (!world || !shared || !link) throw new Error('a stream that is begun has a domain and a link');
    const { windowEpochs, slabBytes } = this.#config.checkpoint;
    const capture = new Capture({
      config: this.#config,
      world,
      link,
      shared,
      disks: this.#disks,
      slabs: () => (this.#slabs ??= makeSlabs(windowEpochs + 1, slabBytes)),
      hung: () => (this.#slabs = null),
      log: this.#log,
      reported,
      ready: this.#exposed,
    });
    this.#capture = capture;
    return {
      capture: (epoch, mark) => capture.capture(epoch, mark),
      end: () => capture.end(),
      report: (epoch) => capture.report(epoch),
      close: () =>
        concat(
          this.tasks.attempt('save the domain', () => capture.close()),
          // What was given to the socket is sent from where it lies, in slabs that the next stream will fill.
          defer(() => link.closed).pipe(ignoreElements()),
        ),
    };
  }

  /** `afterOutput`: what was let out leaves first, in whatever time the hypervisor has for that. */
  letGo(how: Leave, afterOutput: boolean): Observable<never> {
    return this.tasks.attempt('let the domain go', async () => {
      if (afterOutput) await this.#outputLeaves();
      await this.#letGo(how);
    });
  }

  /** Completes when what was let out has left for where it goes, or could not. */
  outputLeaves(): Observable<never> {
    return this.tasks.attempt('let the output leave', () => this.#outputLeaves());
  }

  async #outputLeaves(): Promise<void> {
    const { hypervisorTimeoutMs } = this.#config.checkpoint;
    try {
      await within(hypervisorTimeoutMs, 'release', this.world?.gate.settled() ?? Promise.resolve());
    } catch (error) {
      this.#log.warn({ err: asError(error) }, 'what was let out may not have left');
    }
  }

  async #letGo(how: Leave): Promise<void> {
    if (!this.world) return;
    const { domain, gate, stop } = this.world;
    if (!domain.leave) {
      await domain.destroy();
      return;
    }
    const goOn = (reason: 'pressure' | 'unlinked'): Promise<void> =>
      stop.remove(reason).catch((error: unknown) => {
        this.#log.warn({ err: error }, 'could not let the domain go on');
      });
    if (how !== 'stopped') {
      // It goes on: whoever has stopped it lets it run first.
      await this.#capture?.close();
      await goOn('pressure');
    }
    if (how === 'free') {
      await goOn('unlinked');
      await gate.pass();
    }
    for (const advice of await domain.leave(how)) this.#log.warn({ how }, advice);
  }

  /** What comes of a failure is an event, or nothing. */
  #orFailed(
    what: string,
    work: (world: World) => Promise<void>,
    failed: (error: unknown) => LifeEvent | null,
  ): Observable<LifeEvent> {
    let event: LifeEvent | null = null;
    const worked = this.tasks.attempt(what, async () => {
      try {
        if (this.world) await work(this.world);
      } catch (error) {
        event = failed(error);
      }
    });
    return concat(
      worked,
      defer(() => (event ? of(event) : EMPTY)),
    );
  }
}
