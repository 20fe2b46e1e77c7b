// What is known of a domain on one of its hosts, what can happen and what can be asked for. The decisions stand in role.ts.

import type { Register, RegisterWrite } from '../failover/register.js';
import type { HostPhase } from '../report/reports.js';

export interface RoleSettings {
  readonly host: string;
  /** All hosts of the domain, in order of preference. */
  readonly hosts: readonly string[];
  readonly canStandBy: boolean;
  /** The register is one for all hosts; else each has its own, and the others are asked. */
  readonly shared: boolean;
  /** What becomes of a domain that has crashed while nobody stood by. */
  readonly onCrash: 'restart' | 'stay';
  /** Makes tokens of this process unlike those of any other. */
  readonly instance: string;
  readonly retryMinMs: number;
  readonly retryMaxMs: number;
}

/**
 * none      nothing runs here, and nothing shall
 * reading   the register is asked
 * booting   it is written that we are the owner, then the domain is made
 * owner     it runs here: primary/ has it
 * standby   it stands by here, or tries to: secondary/ has it
 * changing  what was here is being ended, before the register is read anew
 */
export type RolePhase = HostPhase;

export interface RoleState {
  readonly settings: RoleSettings;
  phase: RolePhase;
  /** As it was read or written last; null: absent. */
  register: Register | null;
  /** It was read, or written. */
  known: boolean;
  /** A domain of ours was found running here: its agent was restarted. */
  found: boolean;
  /** The operator knows that nobody else runs it. */
  forced: boolean;
  /** A write under way. */
  asking: RegisterWrite | null;
  writes: number;
  /** Hosts that have said since we stand by, and since we were last busy, that they do not run it. */
  absent: readonly string[];
  /** The standby has a link, or a checkpoint: what it is about decides what becomes of it. */
  busy: boolean;
  /** Reads in a row that failed, or told nothing new. */
  failures: number;
  /** Starts in a row, of an owner or a standby, that came to nothing. */
  crashes: number;
  /** Whose link the standby may try first; null: nobody is known to own it. */
  owner: string | null;
  error: { readonly code: string; readonly message: string } | null;
}

export type RoleEvent =
  | { readonly kind: 'start'; readonly found: boolean }
  | { readonly kind: 'register'; readonly register: Register | null }
  | { readonly kind: 'register-failed'; readonly code: string; readonly message: string }
  | {
      readonly kind: 'answered';
      readonly token: string;
      readonly won: boolean;
      readonly register: Register | null;
    }
  /** `alone`: nobody else may run it; `steady`: it ran for a while. */
  | {
      readonly kind: 'owner-over';
      readonly how: 'ended' | 'failed' | 'fenced';
      readonly alone: boolean;
      readonly steady: boolean;
    }
  /** took-over: by the register as it is now; it runs, and waits for an owner. */
  | { readonly kind: 'took-over'; readonly register: Register }
  | { readonly kind: 'standby-over'; readonly how: 'ended' | 'failed' }
  | { readonly kind: 'standby'; readonly busy: boolean }
  /** A host answered the standby's dial: it does not run the domain. */
  | { readonly kind: 'not-here'; readonly host: string }
  /** What was here is ended. */
  | { readonly kind: 'changed' }
  | { readonly kind: 'timer'; readonly timer: 'retry' }
  /** The operator wants it to run here, whatever the register says, or where it was shut down. */
  | { readonly kind: 'force' }
  | { readonly kind: 'stop' };

export type RoleEffect =
  | { readonly kind: 'read' }
  | { readonly kind: 'write'; readonly write: RegisterWrite }
  /** Makes the domain, or takes what was found; it is ours by this register. */
  | { readonly kind: 'boot'; readonly register: Register }
  /** What was taken over is protected from now on. */
  | { readonly kind: 'inherit'; readonly register: Register }
  | { readonly kind: 'stand-by' }
  /** What was found running here is not the domain any more: it is stopped. */
  | { readonly kind: 'stop-found' }
  /** Ends what is here: changed. */
  | { readonly kind: 'end' }
  | { readonly kind: 'arm'; readonly timer: 'retry'; readonly delayMs: number }
  | { readonly kind: 'disarm'; readonly timer: 'retry' }
  | { readonly kind: 'transition'; readonly reason: string };

/** What a decision asks for, in the order in which it is done. */
export type Effects = RoleEffect[];

export function initialRole(settings: RoleSettings): RoleState {
  return {
    settings,
    phase: 'none',
    register: null,
    known: false,
    found: false,
    forced: false,
    asking: null,
    writes: 0,
    absent: [],
    busy: false,
    failures: 0,
    crashes: 0,
    owner: null,
    error: null,
  };
}
