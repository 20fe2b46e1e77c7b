// The buffering restorer over one link (secondary/commits.ts, restoring.ts): what came whole is acknowledged, then applied;
// it is done when the link is lost and all that came whole before is applied.

import type { SecondaryEvent } from '../../../src/secondary/vigil-state.js';
import { chained } from '../../../src/channel/link/digest.js';
import type { Point } from '../checkers/history.js';
import type { Process } from '../world/process.js';
import type { Cluster } from './cluster.js';
import { digestOf } from './domain.js';
import type { LinkEnd } from './link-end.js';

/** A domain that is filled. */
export interface Vessel {
  /** As of the last checkpoint that was applied; null: none was. */
  content: Point | null;
}

export interface Whole {
  readonly epoch: number;
  readonly point: Point;
  /** It is the last. */
  readonly handOver: boolean;
}

export class Restorer {
  readonly vessel: Vessel;
  readonly #process: Process;
  readonly #link: LinkEnd;
  readonly #cluster: Cluster;
  readonly #tell: (event: SecondaryEvent) => void;
  readonly #done: () => void;
  readonly #waiting: Whole[] = [];
  #working = true;
  #acknowledged = -1;
  /** As StreamProgress has it. */
  #digest: bigint;
  /** It goes on in what was filled before. */
  readonly #resumes: boolean;
  #over = false;

  /** `arrived`: what came before it was begun. `kept`: what it goes on in, and the digest of that. */
  constructor(
    process: Process,
    link: LinkEnd,
    cluster: Cluster,
    arrived: readonly Whole[],
    kept: { readonly vessel: Vessel; readonly digest: bigint } | null,
    tell: (event: SecondaryEvent) => void,
    done: () => void,
  ) {
    this.#process = process;
    this.#link = link;
    this.#cluster = cluster;
    this.#tell = tell;
    this.#done = done;
    this.vessel = kept?.vessel ?? { content: null };
    this.#digest = kept?.digest ?? 0n;
    this.#resumes = kept !== null;
    this.#waiting.push(...arrived);
    process.after(cluster.params.commitMs, () => this.#goOn());
  }

  get size(): number {
    return this.#waiting.length;
  }

  receive(whole: Whole): void {
    this.#waiting.push(whole);
    this.#next();
  }

  /** Nothing more comes. */
  lost(): void {
    this.#next();
  }

  #goOn(): void {
    this.#working = false;
    this.#next();
  }

  #next(): void {
    if (this.#working || this.#over) return;
    const whole = this.#waiting.shift();
    if (whole) this.#commit(whole);
    else if (this.#link.isLost) this.#end('LINK_CLOSED');
  }

  #commit({ epoch, point, handOver }: Whole): void {
    const { streamUuid } = this.#link;
    this.#working = true;
    this.#acknowledged = epoch;
    this.#digest = chained(this.#digest, digestOf(point));
    if (epoch === 0 && this.#resumes) this.#goesOn(point);
    const last = handOver && { lastAtMs: this.#process.nowMs };
    this.#tell({ kind: 'acknowledged', streamUuid, epoch, digest: this.#digest, ...last });
    this.#link.send({ kind: 'ack', epoch });
    const { commitMs, refusesLast } = this.#cluster.params;
    this.#process.after(commitMs, () => {
      if (handOver && refusesLast !== null) {
        this.#cluster.refused();
        const consistent = refusesLast === 'goes-back';
        this.#end('BAD_CONTEXT', { consistent, epochsBack: consistent ? 1 : 0 });
        return;
      }
      this.vessel.content = point;
      if (handOver) this.#tell({ kind: 'complete', streamUuid });
      if (handOver) this.#end('');
      else this.#goOn();
    });
  }

  /** What came holds what has changed since, no more. */
  #goesOn(point: Point): void {
    const { history } = this.#cluster;
    const { content } = this.vessel;
    this.#cluster.resumed++;
    if (content === null || !history.isPast(content, point))
      history.wrong(`a stream goes on to ${history.name(point)} from what is not its past`);
  }

  /** `code`: why; empty: nothing follows the last one. */
  #end(code: string, how = { consistent: this.#resumes || this.#acknowledged >= 0, epochsBack: 0 }): void {
    this.#over = true;
    const { streamUuid } = this.#link;
    this.#tell({ kind: 'restored', streamUuid, code, message: code, ...how });
    this.#done();
  }
}
