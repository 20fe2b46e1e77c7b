// One domain of the cluster on this host: what role it has here (role.ts decides), and the part that plays it.
//
//   register, peers, parts ─▶ role ─▶ boot, inherit ─▶ primary/   ─ over ─┐
//                                     stand-by      ─▶ secondary/ ─ over ─┴▶ role
//
// There is one part at a time, and the next one is not begun before it is ended.

import { randomBytes } from 'node:crypto';
import {
  EMPTY,
  Subject,
  catchError,
  concatMap,
  map,
  mergeMap,
  of,
  type Observable,
  type Subscription,
} from 'rxjs';
import { asError, codeOf } from '../errors.js';
import { settle } from '../failover/settle.js';
import type { RegisterWitness, RegisterWrite } from '../failover/register.js';
import { MONOTONIC, monotonicMs } from '../flow/clock.js';
import { feedback, performersOf, type Performer } from '../flow/feedback.js';
import { ofKind } from '../flow/of-kind.js';
import type { Reloaded } from '../flow/reloaded.js';
import { timers } from '../flow/timers.js';
import { Work } from '../flow/work.js';
import { ServiceError, type SwitchoverErrorCode } from '../report/error.js';
import type { Logger } from '../report/log.js';
import type {
  DomainStatus,
  RoleReport,
  SwitchoverReport,
  TrialReport,
  TrialRequest,
} from '../report/reports.js';
import { OwnerPart, StandbyPart, type Part, type PartOptions } from './parts.js';
import { initialRole, type RoleEffect, type RoleEvent, type RoleState } from './role-state.js';
import { stepRole } from './role.js';

export interface ProtectedDomainOptions extends Omit<PartOptions, 'instance' | 'settle' | 'read'> {
  readonly witness: RegisterWitness;
  /** The witness is one for all hosts. */
  readonly shared: boolean;
  readonly onCrash: 'restart' | 'stay';
  readonly canStandBy: boolean;
  /** The domain was found running here, by who was here before us. */
  readonly found: boolean;
  readonly roles$: Subject<RoleReport>;
}

const RETRY_MIN_MS = 500;
const RETRY_MAX_MS = 5000;
const STOP_TIMEOUT_MS = 10_000;

const { atOnce, inTurn, told } = performersOf<RoleEvent, RoleEffect>();

export class ProtectedDomain {
  readonly name: string;
  readonly #options: ProtectedDomainOptions;
  readonly #log: Logger;
  readonly #work: Work;
  readonly #events$ = new Subject<RoleEvent>();
  readonly #left = new AbortController();
  readonly #partOptions: PartOptions;
  readonly #running: Subscription;
  #state: RoleState;
  #part: Part | null = null;
  #stopping: Promise<void> | null = null;

  constructor(options: ProtectedDomainOptions) {
    const { host, hosts, log } = options;
    this.name = options.primary.name;
    this.#options = options;
    this.#log = log;
    this.#work = new Work((err, what) => log.error({ err }, `could not ${what}`));
    const instance = randomBytes(9).toString('hex');
    this.#partOptions = {
      ...options,
      instance,
      settle: (write, signal) => this.#settle(write, signal),
      read: (signal) => options.witness.read(this.name, signal),
    };
    const { canStandBy, shared, onCrash } = options;
    const limits = { retryMinMs: RETRY_MIN_MS, retryMaxMs: RETRY_MAX_MS };
    this.#state = initialRole({ host, hosts, canStandBy, shared, onCrash, instance, ...limits });
    // A step that throws is a fault of ours: nobody catches it here, and the process ends.
    this.#running = feedback(stepRole, this.#state, this.#events$, this.#performers(), MONOTONIC).subscribe(
      ([state]) => (this.#state = state),
    );
  }

  start(): void {
    this.#events$.next({ kind: 'start', found: this.#options.found });
  }

  /** The operator knows that nobody else runs it. False: it is not known here, for it runs, or stands by, here. */
  force(): boolean {
    const { phase, busy } = this.#state;
    this.#events$.next({ kind: 'force' });
    return phase === 'none' || ((phase === 'reading' || phase === 'standby') && !busy);
  }

  /** That host has said, since we stand by, that it neither runs nor holds the domain. */
  hasLetGo(host: string): boolean {
    return this.#state.absent.includes(host);
  }

  /** Looks into the register again, for those who look at us. */
  async refresh(): Promise<void> {
    await this.#work.run('ask the witness', async () => {
      const register = await this.#options.witness.read(this.name, this.#left.signal);
      if (this.#state.phase === 'standby') this.#events$.next({ kind: 'register', register });
    });
  }

  requestCheckpoint(): void {
    this.#part?.requestCheckpoint();
  }

  /** As AgentService says. @throws ServiceError */
  async switchover(to: string | null): Promise<SwitchoverReport> {
    const { host, witness, shared } = this.#options;
    const domain = this.name;
    const refused = (code: SwitchoverErrorCode, message: string, cause?: Error) =>
      new ServiceError(code, message, { domain, host }, cause && { cause });
    if (!this.runsHere) throw refused('NOT_OWNER', 'the domain does not run here');
    if (!shared) throw refused('NO_WITNESS', `${witness.name} is no witness that both hosts see`);
    // One that answers now will, a moment later, say whose the domain is: it stands still for no longer.
    await witness.read(domain, this.#left.signal).catch((thrown: unknown) => {
      throw refused('NO_WITNESS', 'the witness cannot be asked', asError(thrown));
    });
    const handedOver = this.#part?.handOver?.(to);
    if (!handedOver) throw refused('NOT_OWNER', 'the domain does not run here');
    const report = await handedOver;
    this.#log.info({ ...report }, `switched over to ${report.to}`);
    return report;
  }

  /** As AgentService says. @throws ServiceError, HypervisorError */
  async testFailover(request: TrialRequest): Promise<TrialReport> {
    const tried = this.#part?.testFailover?.(request);
    if (tried) return tried;
    const { host } = this.#options;
    const standby = this.status().register?.standby ?? null;
    const where =
      standby === null || standby === host ? '' : `: it stands by on ${standby}, whose agent is to be asked`;
    const message = `the domain does not stand by here${where}`;
    throw new ServiceError('NOT_STANDBY', message, { domain: this.name, host, standby });
  }

  get runsHere(): boolean {
    return this.#state.phase === 'owner';
  }

  async reload(): Promise<readonly Reloaded[]> {
    return (await this.#part?.reload()) ?? [];
  }

  status(): DomainStatus {
    const { error, phase, register } = this.#state;
    const status = this.#part?.status() ?? idle(this.name);
    return { ...status, phase, register: this.#part?.register ?? register, error: status.error ?? error };
  }

  stop(): Promise<void> {
    this.#stopping ??= this.#stop();
    return this.#stopping;
  }

  #performers(): readonly Performer<RoleEvent, RoleEffect>[] {
    return [
      (effects$) => timers(effects$.pipe(ofKind('arm', 'disarm')), MONOTONIC),
      atOnce('read', () => this.#read()),
      inTurn('write', ({ write }) => this.#write(write)),
      (effects$) =>
        effects$.pipe(
          ofKind('boot', 'inherit', 'stand-by', 'end', 'stop-found'),
          concatMap((effect) => this.#change(effect)),
        ),
      told('transition', ({ reason }) => this.#transition(reason)),
    ];
  }

  #read(): Observable<RoleEvent> {
    return this.#work
      .keep(() => this.#options.witness.read(this.name, this.#left.signal))
      .pipe(
        map((register): RoleEvent => ({ kind: 'register', register })),
        catchError((thrown: unknown) => {
          const error = asError(thrown);
          if (!this.#left.signal.aborted) this.#log.warn({ err: error }, 'the witness cannot be asked');
          return of<RoleEvent>({ kind: 'register-failed', code: codeOf(error), message: error.message });
        }),
      );
  }

  #write(write: RegisterWrite): Observable<RoleEvent> {
    return this.#work
      .keep(() => this.#settle(write, this.#left.signal))
      .pipe(
        map((outcome): RoleEvent => ({ kind: 'answered', token: write.token, ...outcome })),
        // Given up, for we leave.
        catchError(() => EMPTY),
      );
  }

  async #settle(write: RegisterWrite, signal: AbortSignal) {
    const { witness } = this.#options;
    let told = '';
    const settled = await settle(witness, this.name, write, {
      signal,
      onFailure: ({ step, error, waitMs }) => {
        // It is tried for as long as it takes.
        const news = error.message !== told;
        told = error.message;
        this.#log[news ? 'warn' : 'debug'](
          { err: error, step, waitMs },
          `the register is not written yet: ${told}`,
        );
      },
    });
    const { mode, owner, standby } = write.claim;
    this.#log.info(
      { won: settled.won, mode, owner, standby, generation: settled.register.generation },
      'register',
    );
    return settled;
  }

  /** One part after another. */
  #change(effect: Change): Observable<RoleEvent> {
    return this.#work
      .keep(() => this.#changed(effect))
      .pipe(
        mergeMap((events) => events),
        catchError((thrown: unknown) => {
          const error = asError(thrown);
          this.#log.error({ err: error }, `could not ${effect.kind}`);
          return effect.kind === 'end' ? of<RoleEvent>({ kind: 'changed' }) : EMPTY;
        }),
      );
  }

  async #changed(effect: Change): Promise<readonly RoleEvent[]> {
    // In a turn of its own: what a part is told is decided at once then, and not behind what is being decided here.
    await Promise.resolve();
    switch (effect.kind) {
      case 'end':
        await this.#end();
        return [{ kind: 'changed' }];
      case 'boot':
        await this.#begin(new OwnerPart(this.#partOptions, effect.register));
        return [];
      case 'inherit': {
        const estate = (await this.#part?.bequeath?.()) ?? null;
        await this.#end();
        await this.#begin(new OwnerPart(this.#partOptions, effect.register, estate));
        return [];
      }
      case 'stop-found':
        await this.#stopFound();
        return [];
      case 'stand-by':
        await this.#begin(new StandbyPart(this.#partOptions, () => this.#state.owner));
        return [];
    }
  }

  async #begin(part: Part): Promise<void> {
    this.#part = part;
    part.news$.subscribe((event) => this.#events$.next(event));
    await part.begin();
  }

  /** Another host runs the domain: what runs here must not, and says nothing any more. */
  async #stopFound(): Promise<void> {
    const { dependencies, primary } = this.#options;
    const found = await dependencies.openSource(primary);
    for (const advice of (await found.leave?.('stopped')) ?? []) this.#log.warn(advice);
    if (!found.leave) await found.destroy();
  }

  async #end(): Promise<void> {
    const part = this.#part;
    // What it was is shown until the next one is there.
    await part?.stop();
  }

  #transition(reason: string): void {
    const { phase, register } = this.#state;
    const { generation, mode, owner, standby } = register ?? {};
    this.#log.info({ phase, generation, mode, owner, standby, reason }, `${phase}: ${reason}`);
    this.#options.roles$.next({
      ...{ domain: this.name, host: this.#options.host, phase, reason },
      ...{ register, atMs: monotonicMs() },
    });
  }

  async #stop(): Promise<void> {
    this.#events$.next({ kind: 'stop' });
    if (!(await this.#work.settled(STOP_TIMEOUT_MS)))
      this.#log.warn('the domain did not come to rest in time');
    this.#left.abort();
    this.#running.unsubscribe();
  }
}

type Change = Extract<RoleEffect, { readonly kind: 'boot' | 'inherit' | 'stand-by' | 'end' | 'stop-found' }>;

function idle(domain: string): DomainStatus {
  return {
    domain,
    role: 'none',
    link: 'down',
    peer: null,
    streamUuid: null,
    epochSeen: -1,
    epochAcknowledged: -1,
    epochCommitted: -1,
    acknowledgedAtMs: null,
    bufferedBytes: 0,
    heldOutputBytes: 0,
    error: null,
  };
}
