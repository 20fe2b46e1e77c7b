// The role of a domain on this host under virtual time: what a transcript's commands do to its step, and the lines that
// tell what it asked for.

import type { Register } from '../../src/failover/register.js';
import { written } from '../../src/failover/register.js';
import { stepRole } from '../../src/protection/role.js';
import {
  initialRole,
  type RoleEffect,
  type RoleEvent,
  type RoleSettings,
  type RoleState,
} from '../../src/protection/role-state.js';

export const settings: RoleSettings = {
  ...{ host: 'north', hosts: ['north', 'south'], canStandBy: true, shared: true, onCrash: 'restart' },
  ...{ instance: 'i', retryMinMs: 500, retryMaxMs: 5000 },
};

/** What comes of each command. */
export function playRole(commands: readonly string[]): string[][] {
  const played = new VirtualRole(settingsOf(commands[0] ?? ''));
  return commands.map((command) => played.obey(command));
}

/** `first`: "with hosts south north, registers of their own, a crash that stays, no standby here". */
function settingsOf(first: string): RoleSettings {
  const has = (words: string) => first.startsWith('with ') && first.includes(words);
  const [, hosts] = /hosts ([a-z ]+)/.exec(first) ?? [];
  return {
    ...settings,
    ...(hosts !== undefined && { hosts: hosts.split(' ') }),
    shared: !has('registers of their own'),
    canStandBy: !has('no standby here'),
    onCrash: has('a crash that stays') ? 'stay' : 'restart',
  };
}

class VirtualRole {
  #state: RoleState;
  #now = 0;
  #due: number | null = null;
  #lines: string[] = [];

  constructor(settings: RoleSettings) {
    this.#state = initialRole(settings);
  }

  obey(command: string): string[] {
    this.#lines = [];
    const [, waitMs] = /^wait (\d+)$/.exec(command) ?? [];
    if (waitMs !== undefined) this.#wait(Number(waitMs));
    else if (!command.startsWith('with ')) this.#give(this.#eventOf(command));
    return this.#lines;
  }

  #wait(ms: number): void {
    const until = this.#now + ms;
    while (this.#due !== null && this.#due <= until) {
      this.#now = this.#due;
      this.#due = null;
      this.#give({ kind: 'timer', timer: 'retry' });
    }
    this.#now = until;
  }

  #give(event: RoleEvent): void {
    const [state, effects] = stepRole(this.#state, event);
    this.#state = state;
    for (const effect of effects) {
      if (effect.kind === 'arm') this.#due = this.#now + effect.delayMs;
      else if (effect.kind === 'disarm') this.#due = null;
      else this.#lines.push(lineOf(effect, state));
    }
  }

  #eventOf(command: string): RoleEvent {
    const [what = '', second = '', third = ''] = command.split(' ');
    const has = (word: string) => command.split(' ').includes(word);
    switch (what) {
      case 'start':
        return { kind: 'start', found: has('found') };
      case 'register':
        return this.#registerEventOf(command, second);
      case 'owner': {
        const how = has('fenced') ? 'fenced' : has('ended') ? 'ended' : 'failed';
        return { kind: 'owner-over', how, alone: has('alone'), steady: has('steady') };
      }
      case 'took':
        return { kind: 'took-over', register: registerOf('alone north', 9) };
      case 'standby':
        if (second === 'over:') return { kind: 'standby-over', how: third === 'ended' ? 'ended' : 'failed' };
        return { kind: 'standby', busy: second === 'busy' };
      case 'not':
        return { kind: 'not-here', host: third };
      case 'changed':
      case 'force':
      case 'stop':
        return { kind: what };
      default:
        throw new Error(`no such command: ${command}`);
    }
  }

  /** "register absent", "register alone south", "register paired north south S", "register fails", "register answers won". */
  #registerEventOf(command: string, what: string): RoleEvent {
    const said = command.slice('register '.length);
    if (what === 'absent') return { kind: 'register', register: null };
    if (what === 'fails') return { kind: 'register-failed', code: 'TIMEOUT', message: 'no answer' };
    if (what !== 'answers') return { kind: 'register', register: registerOf(said, 7) };
    const { asking } = this.#state;
    if (!asking) throw new Error('nothing is written');
    const [, theirs] = /^answers lost to (.*)$/.exec(said) ?? [];
    const register = theirs === undefined ? written(asking) : registerOf(theirs, 8);
    return { kind: 'answered', token: asking.token, won: theirs === undefined, register };
  }
}

export function registerOf(said: string, generation: number): Register {
  const [mode = '', owner = '', standby = null, stream = null] = said.split(' ');
  return { generation, mode: mode === 'paired' ? mode : 'alone', owner, standby, stream, token: 't' };
}

function lineOf(effect: Exclude<RoleEffect, { kind: 'arm' | 'disarm' }>, state: RoleState): string {
  switch (effect.kind) {
    case 'read':
      return 'register: read';
    case 'write': {
      const { claim, expected } = effect.write;
      const over = expected === null ? 'where nothing is' : `over generation ${expected.generation}`;
      return `register: write ${claim.mode} ${claim.owner}, ${over}`;
    }
    case 'boot':
    case 'inherit': {
      const { mode, owner, standby, stream, generation } = effect.register;
      const who = [mode, owner, standby, stream].filter((word) => word !== null).join(' ');
      return `${effect.kind}: by generation ${generation}, ${who}`;
    }
    case 'stand-by':
      return 'stand by';
    case 'end':
      return 'end what is here';
    case 'stop-found':
      return 'stop what was found here';
    case 'transition':
      return `report: ${state.phase}: ${effect.reason}`;
  }
}
