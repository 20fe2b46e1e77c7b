// A link that is cut may be cut for us alone: the primary goes on until it hears nothing for as long as its timeout, and
// lets out what we have acknowledged when it reads that.

import { expect } from 'chai';
import { stepSecondary } from '../../src/secondary/vigil.js';
import {
  initialSecondaryState,
  type SecondaryEffect,
  type SecondaryEvent,
} from '../../src/secondary/vigil-state.js';

const done = { consistent: true, epochsBack: 0, code: '', message: '' } as const;
const SETTINGS = { reconnectWindowMs: 300, redialMinMs: 50, redialMaxMs: 500 };

/** What follows when a link is lost, and the primary then dialled; what is armed and asked for since. */
function after(code: string, dialFailed: string): readonly SecondaryEffect[] {
  const link = { streamUuid: 's1', owner: 'north', pairing: 's1', continuous: false, standstillMs: 0 };
  let state = initialSecondaryState(SETTINGS);
  let effects: readonly SecondaryEffect[] = [];
  const since: SecondaryEffect[] = [];
  const give = (event: SecondaryEvent): void => {
    [state, effects] = stepSecondary(state, event);
    since.push(...effects);
  };
  give({ kind: 'start' });
  give({ kind: 'dialled', dial: 1, ...link, silenceMs: 1000 });
  give({ kind: 'acknowledged', streamUuid: 's1', epoch: 0, digest: 0n });
  since.length = 0;
  give({ kind: 'lost', streamUuid: 's1', code });
  give({ kind: 'restored', streamUuid: 's1', ...done });
  give({ kind: 'dial-failed', dial: 2, code: dialFailed });
  return since;
}

const windowOf = (effects: readonly SecondaryEffect[]) =>
  effects.flatMap((effect) =>
    effect.kind === 'arm' && effect.timer === 'reconnect' ? [effect.delayMs] : [],
  );

const takesOver = (effects: readonly SecondaryEffect[]) => effects.some(({ kind }) => kind === 'take-over');

/** The register is asked, the primary is found again meanwhile, and acknowledged to; then it is granted. */
function grantedWhileLinked(): { readonly atOnce: boolean; readonly later: boolean } {
  const link = { owner: 'north', pairing: 's1', standstillMs: 0, silenceMs: 1000 };
  let state = initialSecondaryState(SETTINGS);
  const give = (...events: readonly SecondaryEvent[]): readonly SecondaryEffect[] =>
    events.flatMap((event) => {
      const [next, effects] = stepSecondary(state, event);
      state = next;
      return effects;
    });
  give({ kind: 'start' }, { kind: 'dialled', dial: 1, streamUuid: 's1', continuous: false, ...link });
  give({ kind: 'acknowledged', streamUuid: 's1', epoch: 0, digest: 0n });
  give({ kind: 'lost', streamUuid: 's1', code: 'HEARTBEAT_TIMEOUT' });
  give({ kind: 'restored', streamUuid: 's1', ...done });
  give({ kind: 'timer', timer: 'reconnect', lateMs: 0 });
  give({ kind: 'dialled', dial: state.dial, streamUuid: 's2', continuous: true, ...link });
  give({ kind: 'acknowledged', streamUuid: 's2', epoch: 0, digest: 0n });
  const first = give(
    { kind: 'witness', answer: 'granted' },
    { kind: 'lost', streamUuid: 's2', code: 'FENCED' },
    { kind: 'restored', streamUuid: 's2', ...done },
  );
  const then = give({ kind: 'timer', timer: 'reconnect', lateMs: 0 });
  return { atOnce: takesOver(first), later: takesOver(then) };
}

/** What follows when the last checkpoint is acknowledged, and this happens. */
function handedOverTo(
  standstillMs: number,
  ...happens: readonly SecondaryEvent[]
): readonly SecondaryEffect[] {
  let state = initialSecondaryState(SETTINGS);
  const give = (event: SecondaryEvent): readonly SecondaryEffect[] => {
    const [next, effects] = stepSecondary(state, event);
    state = next;
    return effects;
  };
  give({ kind: 'start' });
  give({ kind: 'dialled', dial: 1, streamUuid, continuous: false, ...LINK, standstillMs });
  give({ kind: 'acknowledged', streamUuid, epoch: 0, digest: 0n });
  const last: SecondaryEvent = { kind: 'acknowledged', streamUuid, epoch: 1, digest: 0n, lastAtMs: 0 };
  return [last, { kind: 'complete', streamUuid } as const, ...happens].flatMap(give);
}

const handedOver = (...happens: readonly SecondaryEvent[]) => handedOverTo(0, ...happens);
const LINK = { owner: 'north', pairing: 's1', standstillMs: 0, silenceMs: 1000 };
const streamUuid = 's1';
const word = { kind: 'handed-over', streamUuid } as const;
const granted = { kind: 'witness', answer: 'granted' } as const;
const cut = { kind: 'lost', streamUuid, code: 'LINK_CLOSED' } as const;
const restored = { kind: 'restored', streamUuid, ...done } as const;
const over = { kind: 'timer', timer: 'reconnect', lateMs: 0 } as const;

/** What was asked of the register: whether as what was handed over. */
function questions(effects: readonly SecondaryEffect[]): boolean[] {
  return effects.flatMap((effect) => (effect.kind === 'ask-witness' ? [effect.handedOver] : []));
}

describe('secondary/vigil: a link that is cut', () => {
  it('without a word: the primary is not dead before it was silent for its timeout', () => {
    expect(windowOf(after('LINK_CLOSED', 'UNREACHABLE'))).to.deep.equal([1000]);
    expect(after('LINK_CLOSED', 'UNREACHABLE').map(({ kind }) => kind)).not.to.include('ask-witness');
  });

  it('by silence: that time is over', () => {
    expect(windowOf(after('HEARTBEAT_TIMEOUT', 'UNREACHABLE'))).to.deep.equal([300]);
  });

  it('by us, for the register has granted the domain: it has acknowledgements still to read', () => {
    expect(grantedWhileLinked()).to.deep.equal({ atOnce: false, later: true });
  });

  it('… or has handed it over: it has let out all that it ever will', () => {
    expect(takesOver(handedOver(word, granted, restored))).to.equal(true);
    expect(takesOver(handedOver(word, cut, granted, restored))).to.equal(true);
    expect(takesOver(handedOver(word, granted, cut, restored))).to.equal(true);
  });

  it('… or was about to: it may be letting out still what was acknowledged, and take the domain back', () => {
    for (const events of [
      [granted, restored],
      [granted, cut, restored],
      [cut, granted, restored],
    ])
      expect(takesOver(handedOver(...events))).to.equal(false);
    expect(takesOver(handedOver(cut, granted, restored, over))).to.equal(true);
    // What was claimed may have been taken back since; and a primary that is dead says so before the window is over.
    const dead = { kind: 'dial-failed', dial: 2, code: 'REFUSED' } as const;
    for (const end of [over, dead])
      expect(questions(handedOver(granted, cut, restored, end))).to.deep.equal([true, false]);
  });

  it('… it comes back while what was handed over is asked for: then it takes that back, and is told nothing else', () => {
    const back = { kind: 'dialled', dial: 2, streamUuid: 's2', continuous: true, ...LINK } as const;
    const effects = handedOver(cut, restored, back, granted, { kind: 'lost', streamUuid: 's2', code: 'X' });
    expect(effects.filter(({ kind }) => kind === 'drop-link')).to.deep.equal([]);
    expect(takesOver(effects)).to.equal(false);
  });

  it('… and the hypervisor goes back behind what was handed over: that is not taken over from', () => {
    const refused = { ...restored, epochsBack: 1, code: 'BAD_CONTEXT' };
    for (const events of [
      [cut, granted, refused],
      [granted, cut, refused],
      [cut, refused, granted],
    ]) {
      const effects = handedOver(...events, over);
      expect(takesOver(effects)).to.equal(false);
      expect(questions(effects), 'for what is held now').to.deep.equal([true, false]);
    }
  });

  it('… then its owner is linked to while that is asked for: it lives, and what is held is not to be taken over from', () => {
    const refused = { ...restored, epochsBack: 1, code: 'BAD_CONTEXT' };
    const back = { kind: 'dialled', dial: 2, streamUuid: 's2', continuous: false, ...LINK } as const;
    const effects = handedOver(refused, back, { kind: 'witness', answer: 'unknown' }, over);
    expect(effects.map(({ kind }) => kind)).to.include.members(['discard-held', 'restore']);
    expect(questions(effects)).to.deep.equal([true]);
  });

  it('… or has no domain any more: its owner has it', () => {
    const effects = handedOver(cut, granted, { ...restored, consistent: false });
    expect(effects.map(({ kind }) => kind)).to.not.include.members(['finished']);
  });

  it('with shared disks nothing can be taken back: it is asked when all of it is here, and the word', () => {
    const shared = (...happens: readonly SecondaryEvent[]) => questions(handedOverTo(500, ...happens));
    expect([shared(), shared(word), shared(restored)]).to.deep.equal([[], [], []]);
    expect([shared(word, restored), shared(restored, word)]).to.deep.equal([[true], [true]]);
    expect(takesOver(handedOverTo(500, word, restored, granted))).to.equal(true);
  });

  it('and nobody listens there: it is dead, and nothing more of it leaves', () => {
    expect(after('LINK_CLOSED', 'REFUSED').map(({ kind }) => kind)).to.include('ask-witness');
  });
});
