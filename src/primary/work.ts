// What is done to one domain: its gate, its running and standing still, its saver. Each piece of work is begun when it is
// subscribed to, and is over when its Observable completes; a failure is logged, and told as an event where the domain
// cannot go on without it.

import { EMPTY, Observable, concat, defer, ignoreElements, of } from 'rxjs';
import type { PrimaryLink } from '../channel/contract.js';
import type { PrimaryDomainConfig } from '../config/schema.js';
import { asError, codeOf } from '../errors.js';
import { Tasks } from '../flow/tasks.js';
import type { Leave } from '../hypervisor/port.js';
import { nameDescriptorLimit } from '../report/descriptors.js';
import type { Logger } from '../report/log.js';
import type { CheckpointReport } from '../report/reports.js';
import { makeSlabs, type Slab } from '../save/slab.js';
import { Capture } from './capture.js';
import type { LifeEvent } from './life-state.js';
import type { Release } from './ledger.js';
import type { OrderedGate } from './ordered-gate.js';
import type { DomainPorts } from './primary.js';
import type { Saver } from './stream.js';
import type { World } from './world.js';

export class DomainWork implements DomainPorts {
  /** Null until the domain is made. */
  world: World | null = null;

  readonly #config: PrimaryDomainConfig;
  readonly #log: Logger;
  readonly #tasks: Tasks;
  /** Whether its hypervisor knows who may take the domain over. */
  #exposed: Promise<void> = Promise.resolve();
  #capture: Capture | null = null;
  /** What checkpoints are captured into, in one stream after another; made for the first. */
  #slabs: readonly Slab[] | null = null;

  readonly gate: DomainPorts['gate'] = {
    hold: () => this.#gate((gate) => gate.hold()),
    pass: () => this.#gate((gate) => gate.pass()),
    restart: () => this.#gate((gate) => gate.restart()),
    discard: () => this.#gate((gate) => gate.discard()),
  };

  constructor(config: PrimaryDomainConfig, log: Logger) {
    this.#config = config;
    this.#log = log;
    this.#tasks = new Tasks((error, what) => {
      // Of a domain that ends with us nothing gets out any more; how it ended is told as such.
      const over = codeOf(error) === 'DOMAIN_GONE' && this.world?.domain.leave === undefined;
      log[over ? 'debug' : 'warn']({ err: error }, `could not ${what}`);
    });
  }

  /** Work that nobody waits for but settled(): its failure is logged. `what` completes "could not …". */
  readonly run = (what: string, work: () => Promise<unknown>): void => this.#tasks.run(what, work);

  /** The same, for who waits. */
  doing(what: string, work: () => Promise<unknown>): Observable<never> {
    return new Observable((subscriber) => {
      this.run(what, async () => {
        try {
          await work();
        } finally {
          subscriber.complete();
        }
      });
    });
  }

  /** False if the work that is under way is not over in time. */
  settled(timeoutMs: number): Promise<boolean> {
    return this.#tasks.settle(timeoutMs);
  }

  /** The domain is of no use any more, and why. */
  failed(thrown: unknown, what: string): LifeEvent {
    const error = nameDescriptorLimit(asError(thrown));
    this.#log.error({ err: error }, what);
    return { kind: 'domain-failed', code: codeOf(error), message: error.message };
  }

  start(): Observable<LifeEvent> {
    return this.#orFailed(
      'start the domain',
      async (world) => world.domain.start(),
      (error) => this.failed(error, 'the domain does not start'),
    );
  }

  /** One that cannot be stopped is let go as one that has failed: ended, or stopped by whatever means are left. */
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
    return this.doing('let the domain go on', async () => this.world?.stop.remove('unlinked'));
  }

  pause(again: boolean): Observable<never> {
    if (!again) {
      this.#log.warn(
        { heldBytes: this.world?.gate.heldBytes, waitingForConsole: this.world?.waitingBytes },
        'output over its limit: domain stopped',
      );
    }
    return this.doing('stop the domain', async () => this.world?.stop.add('pressure'));
  }

  unpause(): Observable<never> {
    return this.doing('let the domain go on', async () => this.world?.stop.remove('pressure'));
  }

  expose(on: boolean): Observable<never> {
    const before = this.#exposed.catch(() => undefined);
    const exposed = before.then(() => this.world?.domain.expose?.(on));
    this.#exposed = exposed;
    return this.doing('tell the hypervisor whether a secondary may take the domain over', () => exposed);
  }

  release(release: Release): void {
    this.world?.gate.release(release);
  }

  saver(link: PrimaryLink | undefined, reported: (report: CheckpointReport) => void): Saver {
    const { world } = this;
    if (!world || !link) throw new Error('a stream that is begun has a domain and a link');
    const { windowEpochs, slabBytes } = this.#config.checkpoint;
    const capture = new Capture({
      config: this.#config,
      world,
      link,
      slabs: () => (this.#slabs ??= makeSlabs(windowEpochs + 1, slabBytes)),
      hung: () => (this.#slabs = null),
      log: this.#log,
      reported,
      ready: this.#exposed,
    });
    this.#capture = capture;
    return {
      capture: (epoch) => capture.capture(epoch),
      end: () => capture.end(),
      report: (epoch) => capture.report(epoch),
      close: () =>
        concat(
          this.doing('save the domain', () => capture.close()),
          // What was given to the socket is sent from where it lies, in slabs that the next stream will fill.
          defer(() => link.closed).pipe(ignoreElements()),
        ),
    };
  }

  letGo(how: Leave): Observable<never> {
    return this.doing('let the domain go', async () => {
      if (this.world) await this.#letGo(this.world, how);
    });
  }

  async #letGo({ domain, gate, stop }: World, how: Leave): Promise<void> {
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

  #gate(work: (gate: OrderedGate) => Promise<void>): Observable<never> {
    const gate = this.world?.gate;
    return gate ? defer(() => work(gate)).pipe(ignoreElements()) : EMPTY;
  }

  /** What comes of a failure is an event, or nothing. */
  #orFailed(
    what: string,
    work: (world: World) => Promise<void>,
    failed: (error: unknown) => LifeEvent | null,
  ): Observable<LifeEvent> {
    let event: LifeEvent | null = null;
    const worked = this.doing(what, async () => {
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
