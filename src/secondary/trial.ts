// A test failover: what the standby holds runs for a while in a domain of its own, which nobody hears, and is ended. The
// standby goes on with its stream; what it holds is copied beside that.
//
//   a domain for it ─▶ copy of the last checkpoint ─▶ load, start ─▶ … seconds … ─▶ looked at ─▶ destroyed
//                                                                                      interrupted ─┘ from anywhere

import { setTimeout as sleep } from 'node:timers/promises';
import { Subscription, concat, firstValueFrom, merge, of, timer } from 'rxjs';
import { asError, codeOf } from '../errors.js';
import { withinAwake } from '../flow/awake.js';
import { monotonicMs } from '../flow/clock.js';
import type { PageStamps } from '../hypervisor/page-stamps.js';
import {
  failed,
  unsupported,
  type DomainEvent,
  type TargetDomain,
  type TrialDomain,
} from '../hypervisor/port.js';
import { ServiceError } from '../report/error.js';
import type { Logger } from '../report/log.js';
import type { TrialReport } from '../report/reports.js';
import { RestoreError } from '../restore/error.js';
import type { CopiedCheckpoint } from '../restore/copies.js';
import { reasonOf } from './standbys.js';
import { verdictOf, type Trial } from './vigil-trial.js';

/** Of a copy: some five seconds per GiB are usual. */
const COPY_LIMIT_MS = 600_000;
/** A guest that idles still has its timers, several in a second. */
const AT_WORK_MS = 2000;
const AT_WORK_PACE_MS = 20;
const CONSOLE_BYTES_MAX = 2048;
/** By what a guest was stopped whose disk has failed. */
const IO_ERROR = 'io-error';
/** The codes of a domain that there is none of here, whatever the standby holds. */
const NOT_MADE: ReadonlySet<string> = new Set(['UNSUPPORTED', 'BAD_CONFIGURATION', 'OUT_OF_MEMORY']);

export interface TrialOptions {
  /** Of the domain. */
  readonly name: string;
  /** Of this host. */
  readonly host: string;
  readonly standby: TargetDomain;
  /** Copies what it holds into another one. */
  readonly copyTo: (into: TrialDomain) => Promise<CopiedCheckpoint>;
  readonly seconds: number;
  /** Its reason is what it fails with then. */
  readonly signal: AbortSignal;
  readonly log: Logger;
}

/** Resolves, or rejects, when nothing is left of it. @throws as AgentService.testFailover() says */
export async function tryStandby(options: TrialOptions): Promise<TrialReport> {
  const { standby, signal, log } = options;
  signal.throwIfAborted();
  if (!standby.trial) throw unsupported('this hypervisor makes no trials', { domain: options.name });
  const opening = standby.trial(signal);
  try {
    return await Promise.race([attempt(opening, options), aborted(signal)]);
  } finally {
    await opening
      .then((domain) => domain.destroy())
      .catch((error: unknown) => {
        log.debug({ err: error }, 'what was tried cannot be ended, or was never there');
      });
  }
}

async function attempt(opening: Promise<TrialDomain>, options: TrialOptions): Promise<TrialReport> {
  const { name: domain, host, copyTo, seconds, signal, log } = options;
  const tried = await opening;
  signal.throwIfAborted();
  const watch = new Watch(tried);
  try {
    const copy = await copied(Promise.race([copyTo(tried), aborted(signal)]));
    const { epoch, stamps } = copy;
    log.info({ epoch, seconds }, 'test failover: a copy of the domain is started');
    const startedMs = monotonicMs();
    const failure = await watch.runs(() => copy.load(), seconds);
    const ranMs = failure === null ? monotonicMs() - startedMs : 0;
    const seen = failure === null ? await watch.looked(stamps) : { ...NOTHING, failure };
    // What was seen of one that was ended meanwhile says nothing.
    signal.throwIfAborted();
    await tried.trialDisks?.confirm();
    if (tried.trialDisks && watch.state.stoppedBy === IO_ERROR) {
      throw failed(
        'the guest of the trial has stopped over its disk: there may be no room for what it writes',
      );
    }
    const { changedPages } = seen;
    const { outputBytes, console } = watch;
    const verdict = verdictOf({ ...seen, ...watch.state, outputBytes });
    log[verdict.lives ? 'info' : 'warn']({ epoch, ...verdict }, 'test failover: done');
    const ran = { seconds: Math.round(ranMs / 100) / 10, changedPages, outputBytes, console };
    return { domain, host, epoch, ...verdict, ...ran };
  } finally {
    watch.end();
  }
}

/** @throws ServiceError INTERRUPTED, or as either domain */
async function copied(copy: Promise<CopiedCheckpoint>): Promise<CopiedCheckpoint> {
  const late = () => new RestoreError('NOT_COPIED', 'it takes too long', { limitMs: COPY_LIMIT_MS });
  try {
    return await withinAwake(COPY_LIMIT_MS, copy, late);
  } catch (error) {
    if (!(error instanceof RestoreError)) throw error;
    throw new ServiceError(
      'INTERRUPTED',
      `the standby was not copied: ${error.message}`,
      {},
      { cause: error },
    );
  }
}

type Seen = Pick<Trial, 'failure' | 'changedPages' | 'atWork'>;
const NOTHING: Seen = { failure: null, changedPages: 0, atWork: false };

/** What is seen and heard of a domain that is tried. */
class Watch {
  outputBytes = 0;
  #tail: Buffer = Buffer.alloc(0);
  #end: DomainEvent | null = null;
  #stoppedBy: string | null = null;
  #reset: string | null = null;
  readonly #domain: TrialDomain;
  readonly #subscriptions = new Subscription();

  constructor(domain: TrialDomain) {
    this.#domain = domain;
    for (const subscription of [
      domain.output$.subscribe((bytes) => this.#hear(bytes)),
      domain.events$.subscribe((event) => (this.#end = event)),
      domain.stoppedBy$?.subscribe((by) => (this.#stoppedBy = by)),
      domain.resets$?.subscribe((by) => (this.#reset ??= by)),
    ])
      this.#subscriptions.add(subscription);
  }

  get state(): Pick<Trial, 'end' | 'stoppedBy' | 'reset'> {
    const end = this.#end === null ? null : reasonOf(this.#end);
    return { end, stoppedBy: this.#stoppedBy, reset: this.#reset };
  }

  /** The last lines, whole ones where more was said. */
  get console(): string {
    const text = this.#tail.toString('utf8');
    return this.outputBytes > this.#tail.length ? text.slice(text.indexOf('\n') + 1) : text;
  }

  /** Starts it, and lets it run for so long, or until it ends. Resolves with why it could not be started, or null. */
  async runs(load: () => Promise<void>, seconds: number): Promise<string | null> {
    const { events$ } = this.#domain;
    try {
      await load();
      await this.#domain.start();
    } catch (error) {
      // It was not tried, then.
      if (NOT_MADE.has(codeOf(error))) throw error;
      return `it could not be started: ${asError(error).message}`;
    }
    // Destroyed, it is over, too.
    await firstValueFrom(merge(timer(seconds * 1000), concat(events$, of(null))));
    return null;
  }

  /** What it has changed since it was copied, and whether it goes on changing that. */
  async looked(stamps: PageStamps): Promise<Seen> {
    if (this.#end !== null) return NOTHING;
    try {
      const source = this.#domain.source();
      const changed = await stamps.changed(source);
      const changedPages = changed.count();
      const untilMs = monotonicMs() + AT_WORK_MS;
      let atWork = false;
      while (changedPages > 0 && !atWork && monotonicMs() < untilMs) {
        await sleep(AT_WORK_PACE_MS);
        atWork = (await stamps.changed(source, { among: changed, most: 1 })).count() > 0;
      }
      return { failure: null, changedPages, atWork };
    } catch (error) {
      return { ...NOTHING, failure: `it could not be looked at: ${asError(error).message}` };
    }
  }

  end(): void {
    this.#subscriptions.unsubscribe();
  }

  #hear(bytes: Uint8Array): void {
    this.outputBytes += bytes.length;
    this.#tail = Buffer.concat([this.#tail, bytes.subarray(-CONSOLE_BYTES_MAX)]).subarray(-CONSOLE_BYTES_MAX);
  }
}

/** @throws the signal's reason, once it is aborted */
function aborted(signal: AbortSignal): Promise<never> {
  return new Promise((_, reject) => {
    signal.addEventListener('abort', () => reject(asError(signal.reason)), { once: true });
  });
}
