// One stream's saver: the save steps, and around each capture whatever belongs to a pause.
//
//   capture(n)   suspending ─ n = 0: hold ─ prepare ─ seal the network ─ stopping ─ suspend ─ seal the console ─ copy ─ captured ─ resume ─ send
//   the last     … copy ─ captured ─ send: it stands still, for it is handed over
//   end(n)       ending ─ END
//   close()      gives up what is under way, ends the dirty log, resumes the domain if it was left suspended
//
// Each thing that is asked of the hypervisor has a time (limits.ts).

import { EMPTY, Observable, type Subscriber, firstValueFrom, timeout } from 'rxjs';
import type { PrimaryLink } from '../channel/contract.js';
import type { PrimaryDomainConfig } from '../config/agent.js';
import { asError, codeOf } from '../errors.js';
import { monotonicMs } from '../flow/clock.js';
import { HypervisorError, type DomainEvent } from '../hypervisor/port.js';
import type { Logger } from '../report/log.js';
import type { CheckpointReport, Synchronisation } from '../report/reports.js';
import type { SavedCheckpoint } from '../save/callbacks.js';
import { SaveError } from '../save/error.js';
import { precopyPolicy, type SaveStepCallbacks } from '../save/callbacks.js';
import type { Slab } from '../save/slab.js';
import { openSave, type SaveSteps } from '../save/steps.js';
import type { StreamSink } from '../stream/flow.js';
import type { CaptureStage } from './checkpoints.js';
import type { Mark } from './ledger.js';
import { within } from './limits.js';
import { Synchronising } from './synchronising.js';
import type { Shared } from './shared.js';
import type { SharedDisks } from './shared-disks.js';
import type { World } from './world.js';

/** How long a domain that is gone may take to say how it ended. */
const END_TIMEOUT_MS = 2000;

export interface CaptureOptions {
  readonly config: PrimaryDomainConfig;
  readonly world: World;
  readonly link: PrimaryLink;
  /** What the standby has, over the streams. */
  readonly shared: Shared;
  /** The same of its disks; null: none are replicated. */
  readonly disks: SharedDisks | null;
  /** What it fills: its own until it is released, or for ever if it fails with HUNG. */
  readonly slabs: () => readonly Slab[];
  /** The hypervisor may copy into them yet, whenever it likes. */
  readonly hung: () => void;
  readonly log: Logger;
  readonly reported: (report: CheckpointReport) => void;
  /** What must be done before anything of the domain leaves; if it fails, so does the first capture. */
  readonly ready: Promise<void>;
}

/** An epoch between its capture and its report. */
interface Epoch {
  readonly outputBytes: number;
  sent: Promise<{ readonly saved: SavedCheckpoint; readonly atMs: number }> | null;
}

export class Capture {
  readonly #options: CaptureOptions;
  readonly #epochs = new Map<number, Epoch>();
  /** Of the domain that is saved, from the first capture until they are closed. */
  #steps: SaveSteps | null = null;
  /** From the first capture to its acknowledgement. */
  #synchronising: Synchronising | null = null;
  /** The capture, or END, that is under way. */
  #work: Promise<void> = Promise.resolve();
  /** Who is told of it. */
  #stages: Subscriber<CaptureStage> | null = null;
  #leaving: Subscriber<unknown> | null = null;
  #gone = false;
  #abandoned = false;
  /** Ends a copy of disks, which takes its time. */
  readonly #left = new AbortController();
  #closing: Promise<void> | null = null;

  constructor(options: CaptureOptions) {
    this.#options = options;
  }

  /** As LoopPorts says. To give up, close(): to unsubscribe stops nothing. */
  capture(epoch: number, mark: Mark): Observable<CaptureStage> {
    return this.#observed((stages: Subscriber<CaptureStage>) => {
      this.#stages = stages;
      return this.#capture(epoch, mark, stages);
    });
  }

  end(): Observable<unknown> {
    return this.#observed((leaving) => {
      this.#leaving = leaving;
      return this.#end();
    });
  }

  get synchronisation(): Synchronisation | null {
    return this.#synchronising?.report() ?? null;
  }

  /** The epoch is acknowledged: its report goes out as soon as its sending is known to be over. */
  report(epoch: number): void {
    const acknowledgedAtMs = monotonicMs();
    const { config, link, shared, log, reported } = this.#options;
    shared.acknowledged(epoch);
    const known = this.#epochs.get(epoch);
    this.#epochs.delete(epoch);
    const { synchronisation } = this;
    this.#synchronising = null;
    void known?.sent?.then(
      ({ saved, atMs }) => {
        const { suspend, copy, state, resume } = saved.phases;
        const { dirtyPages, bytes } = saved;
        const pause = suspend + copy + state + resume;
        // The acknowledgement may be read before the socket says that it has sent everything.
        const phases = { ...saved.phases, acknowledge: Math.max(0, acknowledgedAtMs - atMs) / 1000 };
        log.debug({ epoch, dirtyPages, bytes, pause }, 'checkpoint acknowledged');
        const { outputBytes } = known;
        const { streamUuid } = link;
        reported({
          ...{ domain: config.name, streamUuid, epoch, dirtyPages, bytes, pause, phases, outputBytes },
          ...(synchronisation && { synchronisation }),
        });
      },
      // The next step fails with that error.
      () => undefined,
    );
  }

  /** Resolves when the domain is let go of, whatever was under way; never rejects. */
  close(): Promise<void> {
    this.#abandoned = true;
    this.#left.abort(abandoned());
    return (this.#closing ??= this.#close());
  }

  #observed<Stage>(work: (stages: Subscriber<Stage>) => Promise<void>): Observable<Stage> {
    return new Observable((subscriber) => {
      const done = work(subscriber).catch(async (error: unknown) => {
        throw await this.#failed(asError(error));
      });
      this.#work = done.then(
        () => subscriber.complete(),
        (error: unknown) => subscriber.error(error),
      );
    });
  }

  async #capture(epoch: number, mark: Mark, stages: Subscriber<CaptureStage>): Promise<void> {
    const steps = this.#steps ?? (await this.#open());
    const stage = await steps.capture();
    this.#gone = stage === 'gone';
    if (this.#gone) {
      stages.next(stage);
      return;
    }
    this.#options.shared.captured(epoch);
    this.#options.disks?.captured(this.#options.link.streamUuid, epoch);
    if (mark === 'trial') this.#options.link.setTrial(epoch);
    if (mark === 'last') await this.#handOver(epoch);
    const resumed = steps.resume();
    // What follows from the capture is thought about when the domain is told to go on, not in its pause.
    await Promise.resolve();
    stages.next(stage);
    await resumed;
    this.#check();
    const sent = steps.send().then((saved) => ({ saved, atMs: monotonicMs() }));
    sent.catch(() => undefined); // the next step fails with it
    const known = this.#epochs.get(epoch);
    if (known) known.sent = sent;
  }

  /** Whoever decides lets the domain go on, if it is not taken. */
  async #handOver(epoch: number): Promise<void> {
    this.#check();
    await this.#options.world.stop.add('handed-over');
    this.#options.link.setHandOver(epoch);
  }

  async #open(): Promise<SaveSteps> {
    const { config, world, link, shared, disks, slabs, ready } = this.#options;
    await ready;
    this.#check();
    await world.domain.disks?.attach();
    this.#check();
    const { resumes } = link;
    this.#synchronising = new Synchronising(resumes);
    if (!shared.begin(link.streamUuid, resumes ? link.hello.shared : null)) {
      throw new SaveError('ABORTED', 'what the standby holds is not known any more');
    }
    this.#steps = await openSave({
      domain: world.domain,
      sink: this.#sink(link.sink),
      streamType: 'remus',
      live: true,
      callbacks: this.#callbacks(),
      slabs: slabs(),
      dirtyLog: shared,
      resumes,
      ...(disks && {
        disks: {
          ...config.disks,
          todo: (marked, signal) => disks.todo(link, marked, signal),
          signal: this.#left.signal,
        },
      }),
    });
    this.#check();
    return this.#steps;
  }

  async #end(): Promise<void> {
    if (!this.#steps) return;
    const result = await this.#steps.end(this.#gone ? 'domain-gone' : 'finished');
    const error = await this.#closeSteps(null);
    if (error) throw error;
    this.#options.log.info({ ...result }, 'stream ended');
  }

  /** What is to be told of it, when the dirty log has ended. */
  async #failed(failure: Error): Promise<Error> {
    if (codeOf(failure) === 'HUNG') this.#options.hung();
    const error = (await this.#closeSteps(failure)) ?? failure;
    // How the domain ended is told before what follows from it.
    if (codeOf(error) === 'DOMAIN_GONE') await this.#ending();
    // An abandoned stream fails in whatever way it can; what happened was told already.
    this.#options.log[this.#abandoned ? 'debug' : 'warn']({ err: error }, 'stream failed');
    return error;
  }

  async #closeSteps(failure: Error | null): Promise<Error | null> {
    const steps = this.#steps;
    this.#steps = null;
    return steps ? steps.close(failure) : failure;
  }

  async #close(): Promise<void> {
    const { world, log } = this.#options;
    this.#synchronising = null;
    await this.#work;
    if (this.#steps) await this.#failed(abandoned());
    // Left suspended if it was given up in mid-checkpoint.
    await world.stop.remove('checkpoint').catch((error: unknown) => {
      if (codeOf(error) !== 'DOMAIN_GONE') log.error({ err: error }, 'the domain could not be resumed');
    });
    this.#epochs.clear();
  }

  #callbacks(): SaveStepCallbacks {
    const { config, world, link } = this.#options;
    const { domain, stop, gate } = world;
    const { hypervisorTimeoutMs } = config.checkpoint;
    const limited = (what: string, work: Promise<void>) => within(hypervisorTimeoutMs, what, work);
    const policy = precopyPolicy(config.precopy);
    return {
      precopyPolicy: (stats) => (this.#abandoned ? 'abort' : policy(stats)),
      prepareSuspend: async (epoch) => {
        this.#check();
        this.#stages?.next('suspending');
        // What the domain says until it is suspended belongs to epoch 0 already.
        if (epoch === 0) await limited('hold', gate.hold());
        await this.#judgeEnd(async () => domain.prepareSuspend?.());
        this.#check();
        await this.#judgeEnd(() => limited('seal', gate.sealBefore(epoch)));
      },
      suspend: async (epoch) => {
        this.#check();
        this.#stages?.next('stopping');
        await this.#judgeEnd(() => stop.add('checkpoint'));
        // An epoch of a stream that is over must not be sealed among those of the next.
        this.#check();
        const outputBytes = gate.emittedBytes;
        this.#epochs.set(epoch, { outputBytes, sent: null });
        link.setOutputBytes(epoch, outputBytes);
        await gate.sealAfter(epoch);
      },
      postcopy: () => stop.remove('checkpoint'),
      diskProgress: (progress) => this.#synchronising?.copied(progress),
      diskWrites: (_, writes) => this.#options.disks?.wrote(writes),
      progress: ({ pagesDone, pagesTotal }) => this.#synchronising?.sent(pagesDone, pagesTotal),
    };
  }

  #check(): void {
    if (this.#abandoned) throw abandoned();
  }

  /** Gone by a shutdown: the saver ends the stream with END. Gone by a crash: the secondary must take over. */
  async #judgeEnd(work: () => Promise<void>): Promise<void> {
    try {
      await work();
    } catch (error) {
      if (codeOf(error) !== 'DOMAIN_GONE') throw error;
      const ending = await this.#ending();
      if (ending?.kind === 'shutdown') throw error;
      throw new HypervisorError('FAILED', 'the domain crashed', { kind: ending?.kind }, { cause: error });
    }
  }

  /** That it is gone may be known before how it ended; null: it is not told in time. */
  #ending(): Promise<DomainEvent | null> {
    const { events$ } = this.#options.world.domain;
    return firstValueFrom(events$.pipe(timeout({ first: END_TIMEOUT_MS, with: () => EMPTY })), {
      defaultValue: null,
    });
  }

  #sink(sink: StreamSink): StreamSink {
    const { world, link, shared } = this.#options;
    return {
      write: (piece) => sink.write(piece),
      drain: () => sink.drain(),
      boundary: (epoch, end) => {
        if (end) {
          link.setOutputBytes(epoch, world.gate.emittedBytes);
          this.#leaving?.next(epoch);
        }
        const written = sink.boundary(epoch, end);
        if (!end) shared.sent(epoch, link.digestOf(epoch));
        return written;
      },
    };
  }
}

function abandoned(): SaveError {
  return new SaveError('ABORTED', 'the stream was abandoned');
}
