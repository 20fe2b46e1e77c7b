// The buffering restorer over one link (secondary/commits.ts, restoring.ts): what came whole is acknowledged, then applied;
// it is done when the link is lost and all that came whole before is applied.

import type { SecondaryEvent } from '../../../src/secondary/vigil-state.js';
import type { Point } from '../checkers/history.js';
import type { Process } from '../world/process.js';
import type { LinkEnd } from './link-end.js';

/** A domain that is filled. */
export interface Vessel {
  /** As of the last checkpoint that was applied; null: none was. */
  content: Point | null;
}

interface Whole {
  readonly epoch: number;
  readonly point: Point;
}

export class Restorer {
  readonly vessel: Vessel = { content: null };
  readonly #process: Process;
  readonly #link: LinkEnd;
  readonly #commitMs: number;
  readonly #tell: (event: SecondaryEvent) => void;
  readonly #done: () => void;
  readonly #waiting: Whole[] = [];
  #working = true;
  #acknowledged = -1;
  #over = false;

  /** `arrived`: what came before it was begun. */
  constructor(
    process: Process,
    link: LinkEnd,
    commitMs: number,
    arrived: readonly Whole[],
    tell: (event: SecondaryEvent) => void,
    done: () => void,
  ) {
    this.#process = process;
    this.#link = link;
    this.#commitMs = commitMs;
    this.#tell = tell;
    this.#done = done;
    this.#waiting.push(...arrived);
    process.after(commitMs, () => this.#goOn());
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
    else if (this.#link.isLost) this.#end();
  }

  #commit({ epoch, point }: Whole): void {
    const { streamUuid } = this.#link;
    this.#working = true;
    this.#acknowledged = epoch;
    this.#tell({ kind: 'acknowledged', streamUuid, epoch });
    this.#link.send({ kind: 'ack', epoch });
    this.#process.after(this.#commitMs, () => {
      this.vessel.content = point;
      this.#goOn();
    });
  }

  #end(): void {
    this.#over = true;
    const { streamUuid } = this.#link;
    const consistent = this.#acknowledged >= 0;
    const said = { epochsBack: 0, code: 'LINK_CLOSED', message: 'the channel broke' };
    this.#tell({ kind: 'restored', streamUuid, consistent, ...said });
    this.#done();
  }
}
