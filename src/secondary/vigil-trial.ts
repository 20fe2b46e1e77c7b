// When the standby may be tried, and what a trial tells. It takes memory, and processors, that a failover or another stream
// would want: so it is made, and goes on, only while the standby is linked and waits.

import type { SecondaryPhase, SecondaryState } from './vigil-state.js';

const ELSEWHERE: Readonly<Record<Exclude<SecondaryPhase, 'linked'>, string>> = {
  dialling: 'the standby has no link to an owner',
  suspect: 'the link to the owner is lost',
  deciding: 'the link to the owner is lost, and the witness is asked for the domain',
  starting: 'the domain is being taken over',
  over: 'the standby has ended',
};

/** Why the standby is not tried now, or not any longer; null: it may be. */
export function trialRefusal({ phase, session, held, asking }: SecondaryState): string | null {
  if (phase !== 'linked') return ELSEWHERE[phase];
  if (session === null || held === null || session.acknowledged < 0) return 'the standby is being filled';
  if (asking || session.complete || session.lastAtMs !== null) return 'the domain is being handed over';
  return session.linked ? null : ELSEWHERE.suspect;
}

/** What was seen of a domain that was tried. */
export interface Trial {
  /** Why it could not be started, or looked at; null: it was. */
  readonly failure: string | null;
  /** How it ended by itself; null: it did not. */
  readonly end: string | null;
  /** By what it was reset; null: it was not. */
  readonly reset: string | null;
  /** By what it was stopped at the end; null: it was not. */
  readonly stoppedBy: string | null;
  readonly changedPages: number;
  /** Pages were changing still when it was looked at. */
  readonly atWork: boolean;
  readonly outputBytes: number;
}

export interface Verdict {
  readonly lives: boolean;
  readonly why: string;
}

export function verdictOf(trial: Trial): Verdict {
  const why = whyDead(trial);
  if (why !== null) return { lives: false, why };
  const { changedPages, outputBytes } = trial;
  return {
    lives: true,
    why: `its guest is at work: ${changedPages} pages changed, ${outputBytes} octets on its console`,
  };
}

function whyDead({ failure, end, reset, stoppedBy, changedPages, atWork }: Trial): string | null {
  if (end !== null) return `it ended: ${end}`;
  if (failure !== null) return failure;
  if (reset !== null) return `its guest was reset: ${reset}`;
  if (stoppedBy !== null) return `it stands still: ${stoppedBy}`;
  if (changedPages === 0) return 'its guest does nothing: no page of its memory changed';
  return atWork ? null : `its guest has come to a standstill: ${changedPages} pages changed before`;
}
