// What the world hears must be one history. A guest counts; each of its runs is a branch that goes on from a point of an
// older one, or from nowhere, if it was booted.
//
//   branch 0   1 2 3 4 5 6 7          heard: 3
//   branch 1         └ 4 5 6          a takeover from 0:3; heard: 1:5; then 0:4 is a contradiction, and 0:2 a second voice

/** So far in this run of the guest. */
export interface Point {
  readonly branch: number;
  readonly count: number;
}

export class History {
  /** What is wrong; null: nothing. */
  violation: string | null = null;
  /** The last that was heard, and when. */
  heard: Point | null = null;
  heardMs = 0;
  /** Where each branch goes on from; null: it was booted. */
  readonly #from: (Point | null)[] = [];
  readonly #hosts: string[] = [];

  /** A run of the guest begins. */
  branch(host: string, from: Point | null): number {
    this.#from.push(from);
    this.#hosts.push(host);
    return this.#from.length - 1;
  }

  hears(host: string, point: Point, atMs: number): void {
    const { heard } = this;
    if (this.follows(point)) {
      this.heard = point;
      this.heardMs = atMs;
    } else if (heard === null || this.isPast(point, heard)) {
      this.wrong(`two were heard: ${this.name(point)} from ${host}, after ${this.heardName}`);
    } else {
      this.wrong(`the world heard ${this.heardName}, then ${this.name(point)} from ${host}`);
    }
  }

  /** Of what was heard; or of a guest that was booted since. */
  follows(point: Point): boolean {
    const { heard } = this;
    if (heard === null || this.isPast(heard, point)) return true;
    // Whether a boot was in order is for others to judge (loss.ts). An old voice is never heard after it.
    return this.#root(point.branch) > this.#root(heard.branch);
  }

  get heardName(): string {
    return this.heard === null ? 'nothing' : this.name(this.heard);
  }

  wrong(what: string): void {
    this.violation ??= what;
  }

  /** Is the one in the past of the other, or the same? */
  isPast(past: Point, point: Point): boolean {
    let { branch, count } = point;
    while (branch !== past.branch) {
      const from = this.#from[branch];
      if (!from) return false;
      ({ branch, count } = from);
    }
    return past.count <= count;
  }

  /** A:1:57, the second run of the guest, on A. */
  name({ branch, count }: Point): string {
    return `${this.#hosts[branch] ?? '?'}:${branch}:${count}`;
  }

  get branches(): number {
    return this.#from.length;
  }

  #root(branch: number): number {
    let root = branch;
    for (let from = this.#from[root]; from; from = this.#from[root]) root = from.branch;
    return root;
  }
}
