// One stream: the saver, driven by the machine's decisions. saveDomain asks through its callbacks; the answers come
// when the machine has made up its mind.
//
//   saveDomain:   prepareSuspend(n), suspend(n) ──── postcopy(n) ──── checkpoint(n) ··············· ▶ next
//   events:       suspending                         captured         ready          decide ▲ / abandon ▲

import { EMPTY, firstValueFrom, timeout } from 'rxjs';
import type { PrimaryLink } from '../channel/contract.js';
import type { PrimaryDomainConfig } from '../config/schema.js';
import { asError, codeOf } from '../errors.js';
import { HypervisorError } from '../hypervisor/port.js';
import type { CheckpointDecision, SaveCallbacks, SavedCheckpoint } from '../save/callbacks.js';
import { SaveError } from '../save/error.js';
import { precopyPolicy } from '../save/policy.js';
import { saveDomain } from '../save/save.js';
import type { Slab } from '../save/slab.js';
import type { StreamSink } from '../stream/flow.js';
import { monotonicMs } from './clock.js';
import { within } from './domain-limits.js';
import type { Logger } from './log.js';
import type { PrimaryDomain } from './primary-domain.js';
import type { CheckpointReport } from './reports.js';
import type { InOrder } from './tasks.js';

export type SaverEvent =
  | { readonly kind: 'suspending' | 'captured' | 'ready' | 'end-sent'; readonly epoch: number }
  | { readonly kind: 'save-failed'; readonly code: string; readonly message: string };

/** How long a domain that is gone may take to say how it ended. */
const END_TIMEOUT_MS = 2000;

export interface PrimarySaverOptions {
  readonly config: PrimaryDomainConfig;
  readonly opened: PrimaryDomain;
  readonly gateOrder: InOrder;
  readonly link: PrimaryLink;
  /** What it fills: its own until it is `released`, or for ever if it fails with HUNG. */
  readonly slabs: () => readonly Slab[];
  readonly log: Logger;
  readonly send: (event: SaverEvent) => void;
  readonly reported: (report: CheckpointReport) => void;
  /** What must be done before anything of the domain leaves; if it fails, so does the saver. */
  readonly ready: Promise<void>;
}

interface Sent {
  readonly saved: SavedCheckpoint;
  readonly atMs: number;
}

/** An epoch between its capture and its report. */
interface Epoch {
  readonly outputBytes: number;
  sent: Promise<Sent> | null;
}

export class PrimarySaver {
  /** Resolves when the saver has let go of the domain, however it ended. */
  readonly ended: Promise<void>;
  /** Resolves when the link has let go of the slabs, too: what was given to the socket is sent from where it lies. */
  readonly released: Promise<void>;

  readonly #options: PrimarySaverOptions;
  readonly #epochs = new Map<number, Epoch>();
  #end: () => void = () => undefined;
  #decide: ((decision: CheckpointDecision) => void) | null = null;
  #abandoned = false;

  constructor(options: PrimarySaverOptions) {
    this.#options = options;
    this.ended = new Promise((resolve) => (this.#end = resolve));
    this.released = this.ended.then(() => options.link.closed);
  }

  async run(): Promise<void> {
    const { config, opened, link, log, send } = this.#options;
    const { domain, stop } = opened;
    try {
      await this.#options.ready;
      if (this.#abandoned) return;
      const result = await saveDomain({
        domain,
        sink: this.#sink(link.sink),
        streamType: 'remus',
        live: true,
        callbacks: this.#callbacks(precopyPolicy(config.precopy)),
        slabs: this.#options.slabs(),
      });
      log.info({ ...result }, 'stream ended');
    } catch (error) {
      // How the domain ended is told before what follows from it.
      if (codeOf(error) === 'DOMAIN_GONE') await new Promise((resolve) => setImmediate(resolve));
      // An abandoned stream fails in whatever way it can; what happened was told already.
      log[this.#abandoned ? 'debug' : 'warn']({ err: error }, 'stream failed');
      send({ kind: 'save-failed', code: codeOf(error), message: asError(error).message });
    } finally {
      // Left suspended if it failed in mid-checkpoint.
      await stop.remove('checkpoint').catch((error: unknown) => {
        if (codeOf(error) !== 'DOMAIN_GONE') log.error({ err: error }, 'the domain could not be resumed');
      });
      this.#epochs.clear();
      this.#end();
    }
  }

  /** The machine's answer to `ready`. */
  decide(decision: CheckpointDecision): void {
    const answer = this.#decide;
    this.#decide = null;
    answer?.(decision);
  }

  /** The stream is over: the saver gives up where it is asked next. */
  abandon(): void {
    this.#abandoned = true;
    this.decide('abort');
  }

  /** The epoch is acknowledged: its report goes out as soon as its sending is known to be over. */
  report(epoch: number, acknowledgedAtMs: number): void {
    const { config, link, log, reported } = this.#options;
    const known = this.#epochs.get(epoch);
    this.#epochs.delete(epoch);
    void known?.sent?.then(
      ({ saved, atMs }) => {
        const { suspend, copy, state, resume } = saved.phases;
        const report: CheckpointReport = {
          domain: config.name,
          streamUuid: link.streamUuid,
          epoch,
          dirtyPages: saved.dirtyPages,
          bytes: saved.bytes,
          pause: suspend + copy + state + resume,
          // The acknowledgement may be read before the socket says that it has sent everything.
          phases: { ...saved.phases, acknowledge: Math.max(0, acknowledgedAtMs - atMs) / 1000 },
          outputBytes: known.outputBytes,
        };
        const { dirtyPages, bytes, pause } = report;
        log.debug({ epoch, dirtyPages, bytes, pause }, 'checkpoint acknowledged');
        reported(report);
      },
      // The saver itself fails with that error.
      () => undefined,
    );
  }

  #callbacks(policy: SaveCallbacks['precopyPolicy'] & object): SaveCallbacks {
    const { opened, send, gateOrder, link, config } = this.#options;
    const { domain, stop, gate, sealedBefore, sealedAfter } = opened;
    const { hypervisorTimeoutMs } = config.checkpoint;
    return {
      precopyPolicy: (stats) => (this.#abandoned ? 'abort' : policy(stats)),
      prepareSuspend: async (epoch) => {
        this.#check();
        send({ kind: 'suspending', epoch });
        await this.#judgeEnd(async () => domain.prepareSuspend?.());
        this.#check();
        await this.#judgeEnd(() =>
          within(
            hypervisorTimeoutMs,
            'seal',
            gateOrder.do(() => sealedBefore.seal(epoch)),
          ),
        );
      },
      suspend: async (epoch) => {
        this.#check();
        await this.#judgeEnd(() => stop.add('checkpoint'));
        // An epoch of a stream that is over must not be sealed among those of the next.
        this.#check();
        const outputBytes = gate.emittedBytes;
        this.#epochs.set(epoch, { outputBytes, sent: null });
        link.setOutputBytes(epoch, outputBytes);
        await gateOrder.do(() => sealedAfter.seal(epoch));
      },
      postcopy: async (epoch) => {
        send({ kind: 'captured', epoch });
        await stop.remove('checkpoint');
      },
      checkpoint: (epoch, sent) => {
        const known = this.#epochs.get(epoch);
        if (known) known.sent = sent.then((saved) => ({ saved, atMs: monotonicMs() }));
        known?.sent?.catch(() => undefined);
        return new Promise((resolve) => {
          if (this.#abandoned) {
            resolve('abort');
            return;
          }
          this.#decide = resolve;
          send({ kind: 'ready', epoch });
        });
      },
    };
  }

  #check(): void {
    if (this.#abandoned) throw new SaveError('ABORTED', 'the stream was abandoned');
  }

  /** Gone by a shutdown: the saver ends the stream with END. Gone by a crash: the secondary must take over. */
  async #judgeEnd(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (codeOf(error) !== 'DOMAIN_GONE') throw error;
      // That it is gone may be known before how it ended.
      const ending = await firstValueFrom(
        this.#options.opened.domain.events$.pipe(timeout({ first: END_TIMEOUT_MS, with: () => EMPTY })),
        { defaultValue: null },
      );
      if (ending?.kind === 'shutdown') throw error;
      throw new HypervisorError('FAILED', 'the domain crashed', { kind: ending?.kind }, { cause: error });
    }
  }

  #sink(sink: StreamSink): StreamSink {
    const { opened, link, send } = this.#options;
    return {
      write: (piece) => sink.write(piece),
      drain: () => sink.drain(),
      boundary: (epoch, end) => {
        if (end) {
          link.setOutputBytes(epoch, opened.gate.emittedBytes);
          send({ kind: 'end-sent', epoch });
        }
        return sink.boundary(epoch, end);
      },
    };
  }
}
