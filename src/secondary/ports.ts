// What a domain of the secondary needs of its world, and where it tells of itself. What works asynchronously answers by
// promises, or, under virtual time, by observables.

import type { BehaviorSubject, Observable, ObservableInput, Subject } from 'rxjs';
import type { SecondaryLink } from '../channel/contract.js';
import type { Work } from '../flow/work.js';
import type { Logger } from '../report/log.js';
import type {
  CommitReport,
  DomainStatus,
  FailoverEvent,
  StandbyLossReport,
  StandbyState,
} from '../report/reports.js';
import type { RestoreSteps } from '../restore/steps.js';
import type { TargetDomain } from '../hypervisor/port.js';
import type { RecordSource } from '../stream/flow.js';
import type { StreamProgress } from './restore-news.js';
import type { Effect, Held, SecondaryEvent } from './vigil-state.js';

export type Answering<Port> = {
  readonly [Call in keyof Port]: Port[Call] extends (...given: infer Given) => Promise<infer Answer>
    ? (...given: Given) => ObservableInput<Answer>
    : Port[Call];
};
export type StreamLink = Answering<SecondaryLink>;
export type Restorer = Omit<Answering<RestoreSteps>, 'resume' | 'copyTo'>;

/** The domain that a stream is restored into. */
export interface Fillable {
  /** Waits for the stream's headers. The restorer that the domain has had before goes on; else `open` makes one. */
  restore(
    source: RecordSource,
    streamUuid: string,
    open: (domain: TargetDomain) => Promise<RestoreSteps>,
  ): ObservableInput<Restorer>;
  /** The work itself; the domain is not destroyed before it is over. */
  occupied<T>(work$: Observable<T>): Observable<T>;
}

/** What is taken over. */
export interface Takeable {
  /** It runs. If it fails with another code than DOMAIN_GONE, it can be tried again. */
  start(): ObservableInput<void>;
  /** What it says is let out. */
  speak(): ObservableInput<void>;
  readonly domain: {
    readonly checkpointsBack?: number;
    announce?(): ObservableInput<void>;
  };
}

export interface SecondaryPorts {
  readonly name: string;
  readonly log: Logger;
  readonly work: Work;
  /** In [0, 1): spreads the dials of many secondaries. */
  random(): number;

  /** start, stop, and how standbys end by themselves. */
  readonly events$: Observable<SecondaryEvent>;
  /** The spare has ended by itself, and why: nothing is to be decided. */
  readonly spareEnded$: Observable<string>;

  /**
   * One attempt; to unsubscribe is to give it up.
   * @throws ChannelError
   */
  dial(effect: Effect<'dial'>): Observable<StreamLink>;
  /** How long the primary's guest may run on after the link is lost, milliseconds; 0: it is not heard. */
  standstillMs(link: StreamLink): number;
  /** Waits for the stream's headers. */
  openRestore(standby: Fillable, source: RecordSource, streamUuid: string): ObservableInput<Restorer>;
  /**
   * Of the register: may the domain be taken over from what is held, and is it ours then? `handedOver`: its owner has it
   * still, and may take it back until that is confirmed, unless both hosts write to the same disks. Rejects if it cannot be
   * asked.
   */
  acquire(held: Held, handedOver: boolean): ObservableInput<'granted' | 'denied'>;
  /** The domain is about to be handed over: what `acquire` needs to know may be asked ahead. */
  foresee(): void;
  /** It runs here; denied: it was taken back. Asked until it is known; rejects if we leave before. */
  confirm(): ObservableInput<'granted' | 'denied'>;

  /** One that is empty, or the one that is kept. */
  fill(resumes: boolean): ObservableInput<Fillable>;
  /** The one that is filled is held from now on. Over when the one held before is destroyed; so below. */
  adopt(): ObservableInput<void>;
  discard(was: StandbyState): ObservableInput<void>;
  held(): Takeable | null;

  /** The links that stand, by their streams. */
  readonly links: Map<string, StreamLink>;
  /** The stream that is restored, or was last. */
  readonly stream$: BehaviorSubject<StreamProgress | null>;
  /** What somebody has to mend. */
  readonly error$: BehaviorSubject<DomainStatus['error']>;
  readonly commits$: Subject<CommitReport>;
  readonly failover$: Subject<FailoverEvent>;
  readonly losses$: Subject<StandbyLossReport>;
  /** The domain does not start. */
  failed(error: Error): void;
  /** The vigil has come to another state. */
  transition(reason: string): void;
  /** The domain has come to an end of its own. */
  finished(): void;
}
