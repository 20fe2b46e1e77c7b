// When a standby may be tried, and what a trial tells: decisions, by themselves.

import { expect } from 'chai';
import { stepSecondary } from '../../src/secondary/vigil.js';
import { initialSecondaryState, type SecondaryEvent } from '../../src/secondary/vigil-state.js';
import type { Of } from '../../src/flow/kinds.js';
import { trialRefusal, verdictOf, type Trial } from '../../src/secondary/vigil-trial.js';

const LINK = { streamUuid: 'S', owner: 'alpha', pairing: 'P', standstillMs: 0 };

/** Why the standby is not tried after these events. */
function refusalAfter(...events: readonly SecondaryEvent[]): string | null {
  let state = initialSecondaryState({ reconnectWindowMs: 300, redialMinMs: 50, redialMaxMs: 2000 });
  for (const event of events) [state] = stepSecondary(state, event);
  return trialRefusal(state);
}

const start: SecondaryEvent = { kind: 'start' };
const dialled: Of<SecondaryEvent, 'dialled'> = { kind: 'dialled', dial: 1, continuous: false, ...LINK };
const acknowledged: Of<SecondaryEvent, 'acknowledged'> = {
  kind: 'acknowledged',
  streamUuid: 'S',
  epoch: 0,
  digest: 0n,
};
const held = [start, dialled, acknowledged];

describe('secondary: when the standby is tried', () => {
  it('while it is linked, and holds a checkpoint', () => {
    expect(refusalAfter(...held)).to.equal(null);
    expect(refusalAfter(...held, { ...acknowledged, epoch: 1 })).to.equal(null);
  });

  const refused: Record<string, readonly [string, readonly SecondaryEvent[]]> = {
    'there is no link yet': ['no link', [start]],
    'nothing is acknowledged yet': ['being filled', [start, dialled]],
    'the link is lost': ['lost', [...held, { kind: 'lost', streamUuid: 'S', code: 'LINK_CLOSED' }]],
    'its owner has taken its leave': [
      'no link',
      [...held, { kind: 'bye', streamUuid: 'S', reason: 'shutdown' }],
    ],
    'the last checkpoint is there': ['handed over', [...held, { kind: 'complete', streamUuid: 'S' }]],
    'the last checkpoint is acknowledged': [
      'handed over',
      [...held, { kind: 'acknowledged', streamUuid: 'S', epoch: 1, digest: 1n, lastAtMs: 0 }],
    ],
    'the standby has ended': ['lost', [...held, { kind: 'held-ended', reason: 'killed' }]],
    'it is stopped': ['ended', [...held, { kind: 'stop' }]],
  };
  for (const [when, [why, events]] of Object.entries(refused)) {
    it(`not when ${when}`, () => {
      expect(refusalAfter(...events)).to.include(why);
    });
  }

  it('not from the loss of the link until the domain runs, or is synchronised anew', () => {
    const lost: SecondaryEvent[] = [
      ...held,
      { kind: 'lost', streamUuid: 'S', code: 'LINK_CLOSED' },
      { kind: 'restored', streamUuid: 'S', consistent: true, epochsBack: 0, code: '', message: '' },
    ];
    const deciding: SecondaryEvent[] = [...lost, { kind: 'dial-failed', dial: 2, code: 'REFUSED' }];
    expect(refusalAfter(...deciding)).to.include('witness');
    const starting: SecondaryEvent[] = [...deciding, { kind: 'witness', answer: 'granted' }];
    expect(refusalAfter(...starting)).to.include('being taken over');
    expect(refusalAfter(...starting, { kind: 'started', epochsBack: 0, runsSinceMs: 0 })).to.include(
      'has ended',
    );
    const again: SecondaryEvent = { ...dialled, dial: 2, streamUuid: 'T', continuous: true };
    expect(refusalAfter(...lost, again)).to.include('being filled');
    expect(refusalAfter(...lost, again, { ...acknowledged, streamUuid: 'T' })).to.equal(null);
  });
});

describe('secondary: what a trial tells', () => {
  const well: Trial = {
    ...{ failure: null, end: null, reset: null, stoppedBy: null },
    ...{ changedPages: 12, atWork: true, outputBytes: 0 },
  };

  it('a guest that goes on changing its memory lives, also a silent one', () => {
    expect(verdictOf(well)).to.deep.include({ lives: true });
    expect(verdictOf(well).why).to.include('12 pages');
  });

  const dead: readonly (readonly [Partial<Trial>, string])[] = [
    [{ end: 'the guest panicked' }, 'panicked'],
    [{ failure: 'it could not be started: no' }, 'could not be started'],
    [{ reset: 'guest-reset' }, 'reset'],
    [{ stoppedBy: 'io-error' }, 'io-error'],
    [{ changedPages: 0, atWork: false }, 'does nothing'],
    [{ atWork: false }, 'standstill'],
    // The end says more than what could not be done because of it.
    [{ end: 'it shut down', failure: 'it could not be looked at' }, 'shut down'],
  ];
  for (const [seen, why] of dead) {
    it(`one with ${JSON.stringify(seen)} does not`, () => {
      const verdict = verdictOf({ ...well, ...seen });
      expect(verdict.lives).to.equal(false);
      expect(verdict.why).to.include(why);
    });
  }
});
