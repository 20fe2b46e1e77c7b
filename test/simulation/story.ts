// What happened in a run, as a reader follows it: time, host, what happened there, and the register as it was then.

import type { Register } from '../../src/failover/register.js';

export interface Story {
  tell(who: string, what: string): void;
}

const WIDTH = 84;

export class Transcript implements Story {
  readonly lines: string[] = [];
  readonly #nowMs: () => number;
  readonly #register: () => Register | null;

  constructor(nowMs: () => number, register: () => Register | null) {
    this.#nowMs = nowMs;
    this.#register = register;
  }

  tell(who: string, what: string): void {
    const time = (this.#nowMs() / 1000).toFixed(3).padStart(8);
    this.lines.push(
      `${time}  ${who.padEnd(7)}  ${what.padEnd(WIDTH)}  | ${nameOf(this.#register())}`.trimEnd(),
    );
  }
}

function nameOf(register: Register | null): string {
  if (register === null) return 'absent';
  const { generation, mode, owner, standby, stream } = register;
  return mode === 'alone'
    ? `${generation} alone ${owner}`
    : `${generation} paired ${owner} ${standby ?? ''} ${stream ?? ''}`;
}
