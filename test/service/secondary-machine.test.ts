import { expect } from 'chai';
import fc from 'fast-check';
import { stepSecondary } from '../../src/service/secondary-machine.js';
import {
  initialSecondaryState,
  secondaryLinkState,
  type SecondaryEffect,
  type SecondaryEvent,
  type SecondarySettings,
  type SecondaryState,
  type SecondaryTimer,
} from '../../src/service/secondary-state.js';
import { VirtualMachine, words } from './virtual-machine.js';

const settings: SecondarySettings = { reconnectWindowMs: 300, redialMinMs: 50, redialMaxMs: 2000 };

const timers: readonly SecondaryTimer[] = ['redial', 'reconnect', 'steady'];

type Machine = VirtualMachine<SecondaryState, SecondaryEvent, SecondaryEffect>;

function machine(start = true): Machine {
  const made: Machine = new VirtualMachine<SecondaryState, SecondaryEvent, SecondaryEffect>(
    stepSecondary,
    initialSecondaryState(settings),
    (event) => event,
    (timer) => ({ kind: 'timer', timer: timers.find((name) => name === timer) ?? 'redial', lateMs: 0 }),
  );
  if (start) made.give({ kind: 'start' });
  return made;
}

/** The dial under way succeeds. */
function link(m: Machine, streamUuid: string, continuous = false): readonly SecondaryEffect[] {
  return m.give({ kind: 'dialled', dial: m.state.dial, streamUuid, continuous, standstillMs: 0 });
}

function refuse(m: Machine, code: string): readonly SecondaryEffect[] {
  return m.give({ kind: 'dial-failed', dial: m.state.dial, code });
}

function acknowledge(m: Machine, epoch: number, streamUuid = 'A'): readonly SecondaryEffect[] {
  return m.give({ kind: 'acknowledged', streamUuid, epoch });
}

function lose(m: Machine, streamUuid = 'A', code = 'LINK_CLOSED'): readonly SecondaryEffect[] {
  return [
    ...m.give({ kind: 'lost', streamUuid, code }),
    ...m.give({ kind: 'restored', streamUuid, consistent: true, epochsBack: 0, message: '', code: '' }),
  ];
}

/** A machine that has committed epochs 0 to 2 of stream A. */
function replicating(): Machine {
  const m = machine();
  link(m, 'A');
  for (const epoch of [0, 1, 2]) acknowledge(m, epoch);
  m.effects = [];
  return m;
}

/** A machine that runs the domain since epoch 2 of stream A. */
function active(): Machine {
  const m = replicating();
  lose(m);
  refuse(m, 'REFUSED');
  m.give({ kind: 'witness', granted: true });
  m.give({ kind: 'started', epochsBack: 0 });
  return m;
}

describe('service/secondary-machine', () => {
  it('no domain can be made at all: failed', () => {
    const m = machine(false);
    expect(words(m.give({ kind: 'domain-failed', code: 'BAD_CONFIGURATION' }))).to.deep.equal([
      'transition no domain can be made: BAD_CONFIGURATION',
      'finished',
    ]);
    expect(m.give({ kind: 'start' })).to.deep.equal([]);
  });

  describe('before anything is held', () => {
    it('dials again and again, slower and slower, and never fails over', () => {
      const m = machine();
      expect(words(m.effects)).to.deep.equal(['dial standby']);
      const delays: (number | null)[] = [];
      for (let i = 0; i < 8; i++) {
        refuse(m, 'REFUSED');
        delays.push(m.armed('redial'));
        expect(words(m.advance(m.armed('redial') ?? 0))).to.deep.equal(['dial standby']);
      }
      expect(delays).to.deep.equal([50, 100, 200, 400, 800, 1600, 2000, 2000]);
    });

    it('a link that is lost before the first checkpoint is dialled again', () => {
      const m = machine();
      link(m, 'A');
      expect(secondaryLinkState(m.state)).to.equal('syncing');
      expect(words(lose(m))).to.deep.equal(['transition LINK_CLOSED', 'discard-filling']);
      expect(words(m.advance(100_000))).to.deep.equal(['dial standby']);
      for (let i = 0; i < 20; i++) {
        refuse(m, 'REFUSED');
        expect(words(m.advance(2000))).to.deep.equal(['dial standby']);
      }
    });
  });

  it('the first acknowledged checkpoint makes the domain the standby', () => {
    const m = machine();
    expect(words(link(m, 'A'))).to.deep.equal(['restore', 'transition linked']);
    expect(words(acknowledge(m, 0))).to.deep.equal(['adopt', 'transition first checkpoint acknowledged']);
    expect(secondaryLinkState(m.state)).to.equal('replicating');
    expect(words(acknowledge(m, 1))).to.deep.equal([]);
    expect(m.state.held).to.deep.equal({ streamUuid: 'A', epoch: 1 });
  });

  describe('suspect', () => {
    it('the dial is refused: the primary is dead, fail over at once', () => {
      const m = replicating();
      expect(words(lose(m))).to.deep.equal(['transition LINK_CLOSED', 'dial standby']);
      expect(secondaryLinkState(m.state)).to.equal('suspect');
      expect(words(refuse(m, 'REFUSED'))).to.deep.equal(['ask-witness']);
      const effects = m.give({ kind: 'witness', granted: true });
      expect(words(effects)).to.deep.equal(['take-over LINK_CLOSED']);
      expect(effects[0]).to.deep.include({ held: { streamUuid: 'A', epoch: 2 } });
      expect(words(m.give({ kind: 'started', epochsBack: 0 }))).to.deep.equal([
        'report-completed',
        'transition failover',
        'dial active',
      ]);
      expect(m.state.role).to.equal('active');
    });

    for (const code of ['UNKNOWN_DOMAIN', 'UNKNOWN_STREAM']) {
      it(`a primary that answers ${code} is not the one that ran the domain: fail over`, () => {
        const m = replicating();
        lose(m);
        expect(words(refuse(m, code))).to.deep.equal(['ask-witness']);
      });
    }

    it('silence: fail over when the reconnect window is over, even in mid-dial', () => {
      const m = replicating();
      lose(m, 'A', 'HEARTBEAT_TIMEOUT');
      expect(words(m.advance(299))).to.deep.equal([]);
      expect(words(m.advance(1))).to.deep.equal(['abort-dial', 'ask-witness']);
    });

    it('a window that ends late, because we were stopped, starts anew', () => {
      const m = replicating();
      lose(m);
      expect(words(m.give({ kind: 'timer', timer: 'reconnect', lateMs: 5000 }))).to.deep.equal([]);
      expect(words(m.advance(299))).to.deep.equal([]);
      expect(words(m.advance(1))).to.deep.equal(['abort-dial', 'ask-witness']);
    });

    it('unreachable: dialled again within the window, then failed over', () => {
      const m = replicating();
      lose(m);
      refuse(m, 'UNREACHABLE');
      expect(words(m.advance(50))).to.deep.equal(['dial standby']);
      refuse(m, 'UNREACHABLE');
      expect(words(m.advance(300))).to.deep.equal(['dial standby', 'abort-dial', 'ask-witness']);
    });

    for (const code of ['ALREADY_LINKED', 'TLS', 'NAME_REFUSED', 'TOKEN_MISMATCH']) {
      it(`a primary that answers ${code} lives: the window starts anew`, () => {
        const m = replicating();
        lose(m);
        for (let i = 0; i < 50; i++) {
          expect(words(refuse(m, code))).to.deep.equal([]);
          expect(words(m.advance(50))).to.deep.equal(['dial standby']);
        }
        expect(words(m.advance(300))).to.deep.equal(['abort-dial', 'ask-witness']);
      });
    }

    it('who does not know the token is nobody: the window goes on', () => {
      const m = replicating();
      lose(m);
      for (let i = 0; i < 6; i++) {
        expect(words(refuse(m, 'NOT_AUTHENTICATED'))).to.deep.equal([]);
        if (i < 5) expect(words(m.advance(50))).to.deep.equal(['dial standby']);
      }
      expect(words(m.advance(50))).to.include('ask-witness');
    });

    it('waits for the restorer to finish what was acknowledged', () => {
      const m = replicating();
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      expect(words(m.advance(1000))).to.deep.equal([]);
      acknowledge(m, 3);
      const effects = m.give({
        kind: 'restored',
        streamUuid: 'A',
        consistent: true,
        epochsBack: 0,
        message: '',
        code: '',
      });
      expect(effects).to.deep.include({ kind: 'ask-witness', held: { streamUuid: 'A', epoch: 3 } });
    });

    it('the first checkpoint was whole when the link was lost: it counts', () => {
      const m = machine();
      link(m, 'A');
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      expect(words(acknowledge(m, 0))[0]).to.equal('adopt');
      expect(secondaryLinkState(m.state)).to.equal('suspect');
      m.give({ kind: 'restored', streamUuid: 'A', consistent: true, epochsBack: 0, message: '', code: '' });
      expect(words(refuse(m, 'REFUSED'))).to.deep.equal(['ask-witness']);
    });

    it('… but not after the primary took its leave', () => {
      const m = machine();
      link(m, 'A');
      m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' });
      acknowledge(m, 0);
      m.give({ kind: 'restored', streamUuid: 'A', consistent: true, epochsBack: 0, message: '', code: '' });
      expect(words(m.advance(1000))).to.deep.equal(['dial standby']);
      expect(words(refuse(m, 'REFUSED'))).to.deep.equal([]);
    });

    it('the restorer could not apply what was acknowledged: no failover into half a checkpoint', () => {
      const m = replicating();
      m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      const effects = m.give({
        kind: 'restored',
        streamUuid: 'A',
        consistent: false,
        epochsBack: 0,
        message: '',
        code: 'FAILED',
      });
      expect(words(effects)).to.deep.equal([
        'standby-lost what it acknowledged could not be applied: FAILED',
        'discard-held',
        'transition the standby was lost',
        'dial standby',
      ]);
      expect(m.effects.at(-1)).to.deep.include({ held: null });
      expect(words(refuse(m, 'REFUSED'))[0]).to.equal('report-impossible LINK_CLOSED');
    });

    it('the witness does not grant: back to suspect, and nothing started', () => {
      const m = replicating();
      lose(m);
      refuse(m, 'REFUSED');
      expect(words(m.give({ kind: 'witness', granted: false }))).to.deep.equal([
        'transition the witness did not grant the lease',
      ]);
      expect(words(m.advance(50))).to.deep.equal(['dial standby']);
      expect(words(refuse(m, 'REFUSED'))).to.deep.equal(['ask-witness']);
    });
  });

  describe('resync', () => {
    it('continuous: the older checkpoint is kept until the new stream has one', () => {
      const m = replicating();
      lose(m);
      expect(words(link(m, 'B', true))).to.deep.equal(['restore', 'transition linked']);
      expect(m.state.held).to.deep.equal({ streamUuid: 'A', epoch: 2 });
      expect(words(acknowledge(m, 0, 'B'))[0]).to.equal('adopt');
      expect(m.state.held).to.deep.equal({ streamUuid: 'B', epoch: 0 });
    });

    it('continuous, and the primary dies in the middle: fail over to the older one', () => {
      const m = replicating();
      lose(m);
      link(m, 'B', true);
      expect(words(lose(m, 'B'))).to.deep.equal([
        'transition LINK_CLOSED',
        'discard-filling',
        'dial standby',
      ]);
      expect(refuse(m, 'REFUSED')).to.deep.include({
        kind: 'ask-witness',
        held: { streamUuid: 'A', epoch: 2 },
      });
    });

    it('not continuous: the older one is dropped, and there is nothing to fail over to', () => {
      const m = replicating();
      lose(m);
      expect(words(link(m, 'B', false))[0]).to.equal('discard-held');
      expect(words(lose(m, 'B'))).to.deep.equal(['transition LINK_CLOSED', 'discard-filling']);
      m.advance(100);
      expect(words(refuse(m, 'REFUSED'))).to.deep.equal([]);
    });

    it('after bytes that were wrong: the link is dropped with its code', () => {
      const m = replicating();
      expect(
        words(
          m.give({
            kind: 'restored',
            streamUuid: 'A',
            consistent: true,
            epochsBack: 0,
            message: '',
            code: 'DIGEST_MISMATCH',
          }),
        ),
      ).to.deep.equal(['drop-link DIGEST_MISMATCH', 'transition DIGEST_MISMATCH', 'dial standby']);
      expect(m.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' })).to.deep.equal([]);
      expect(words(link(m, 'B', true))).to.deep.equal(['restore', 'transition linked']);
    });

    it('no domain to fill can be made: dialled again later', () => {
      const m = machine();
      link(m, 'A');
      expect(words(m.give({ kind: 'domain-failed', code: 'OUT_OF_MEMORY' }))).to.deep.equal([
        'drop-link INTERNAL',
        'transition OUT_OF_MEMORY',
        'discard-filling',
        'dial standby',
      ]);
    });
  });

  describe('a standby that ends by itself', () => {
    const crash = (m: Machine) => m.give({ kind: 'domain-crashed', reason: 'killed' });
    const LOST = ['standby-lost killed', 'discard-held'];
    const DROPPED = [...LOST, 'drop-link STANDBY_LOST', 'transition STANDBY_LOST'];
    /** The restorer finds that the link is gone, or the domain. */
    const restored = (m: Machine, streamUuid = 'A') =>
      m.give({
        kind: 'restored',
        streamUuid,
        consistent: false,
        epochsBack: 0,
        message: '',
        code: 'DOMAIN_GONE',
      });
    const kill = (m: Machine, streamUuid = 'A'): readonly SecondaryEffect[] => [
      ...crash(m),
      ...m.give({ kind: 'lost', streamUuid, code: 'STANDBY_LOST' }),
      ...restored(m, streamUuid),
    ];

    it('while it replicates: the link is dropped and dialled at once, holding nothing, and filled anew', () => {
      const m = replicating();
      expect(words(crash(m))).to.deep.equal(DROPPED);
      expect(secondaryLinkState(m.state)).to.equal('down');
      expect(m.give({ kind: 'lost', streamUuid: 'A', code: 'STANDBY_LOST' })).to.deep.equal([]);
      const effects = restored(m);
      expect(effects.filter(({ kind }) => kind === 'dial')).to.deep.equal([
        { kind: 'dial', dial: 2, role: 'standby', held: null },
      ]);
      expect(words(link(m, 'B'))).to.deep.equal(['restore', 'transition linked']);
      expect(words(acknowledge(m, 0, 'B'))[0]).to.equal('adopt');
      expect(words(lose(m, 'B'))).to.include('dial standby');
      expect(refuse(m, 'REFUSED')).to.deep.include({
        kind: 'ask-witness',
        held: { streamUuid: 'B', epoch: 0 },
      });
    });

    it('an operator who quits it is no other case', () => {
      expect(words(replicating().give({ kind: 'domain-shutdown' }))).to.deep.equal([
        'standby-lost it shut down',
        ...DROPPED.slice(1),
      ]);
    });

    it('while it is filled: the same', () => {
      const m = machine();
      link(m, 'A');
      expect(words(m.give({ kind: 'filling-ended', reason: 'killed' }))).to.deep.equal([
        'standby-lost killed',
        'drop-link STANDBY_LOST',
        'transition STANDBY_LOST',
      ]);
      // The records that were here already make a checkpoint: of a domain that is dead.
      expect(acknowledge(m, 0)).to.deep.equal([]);
      expect(m.state.held).to.equal(null);
      expect(words(restored(m))).to.deep.equal(['discard-filling', 'dial standby']);
    });

    it('what is acknowledged after its end is not held', () => {
      const m = replicating();
      crash(m);
      acknowledge(m, 3);
      expect(m.state.held).to.equal(null);
      const other = replicating();
      other.give({ kind: 'lost', streamUuid: 'A', code: 'LINK_CLOSED' });
      expect(words(crash(other))).to.deep.equal([...LOST, 'transition the standby was lost']);
      acknowledge(other, 3);
      expect(other.state.held).to.equal(null);
      expect(words(restored(other))).to.deep.equal(['dial standby']);
    });

    it('again and again: dialled later and later, until one has lasted', () => {
      const m = replicating();
      const delays: number[] = [];
      let uuid = 'A';
      for (let round = 0; round < 10; round++) {
        kill(m, uuid);
        delays.push(m.state.dial === 0 ? (m.armed('redial') ?? NaN) : 0);
        if (m.state.dial === 0) expect(words(m.advance(delays.at(-1) ?? 0))).to.deep.equal(['dial standby']);
        uuid = `round ${round}`;
        link(m, uuid);
        acknowledge(m, 0, uuid);
        m.advance(settings.redialMaxMs - 1);
      }
      expect(delays).to.deep.equal([0, 50, 100, 200, 400, 800, 1600, 2000, 2000, 2000]);
      m.advance(1);
      expect(words(kill(m, uuid))).to.include('dial standby');
    });

    it('the backoff is no silence of the primary: it is suspect only when it was dialled', () => {
      const m = replicating();
      for (let round = 0; round < 7; round++) {
        if (round > 0) m.advance(m.armed('redial') ?? 0);
        if (round > 0) link(m, 'A');
        if (round > 0) acknowledge(m, 0);
        kill(m);
      }
      expect(m.armed('redial')).to.equal(1600);
      expect(words(m.advance(1600))).to.deep.equal(['dial standby']);
      expect(words(m.advance(299))).to.deep.equal([]);
      expect(words(m.advance(1))).to.include('abort-dial');
    });

    it('a primary that is silent while the restorer ends is not taken for dead', () => {
      const m = replicating();
      crash(m);
      expect(words(m.advance(10_000))).to.deep.equal([]);
      expect(words(restored(m))).to.deep.equal(['dial standby']);
    });

    for (const [how, die] of [
      ['refused', (m: Machine) => refuse(m, 'REFUSED')],
      ['silent', (m: Machine) => m.advance(300)],
    ] as const) {
      it(`and then the primary dies (${how}): the failover has failed, nothing is started, and it is dialled on`, () => {
        const m = replicating();
        kill(m);
        const effects = die(m);
        expect(words(effects).filter((word) => word !== 'abort-dial')).to.deep.equal([
          'report-impossible STANDBY_LOST',
          'transition the primary is dead, and its standby was lost before',
        ]);
        expect(effects).to.deep.include({
          kind: 'report-impossible',
          gone: { streamUuid: 'A', epoch: 2 },
          reason: 'STANDBY_LOST',
        });
        expect(m.state).to.include({ role: 'standby', phase: 'dialling' });
        for (let i = 0; i < 10; i++) {
          expect(words(m.advance(2000))).to.deep.equal(['dial standby']);
          expect(words(refuse(m, 'REFUSED'))).to.deep.equal([]);
        }
        m.advance(2000);
        expect(words(link(m, 'Z'))).to.deep.equal(['restore', 'transition linked']);
      });
    }

    it('and then the primary dies while the next one is filled: failed, with the reason of the link', () => {
      const m = replicating();
      kill(m);
      link(m, 'B');
      expect(words(lose(m, 'B', 'HEARTBEAT_TIMEOUT'))).to.deep.equal([
        'transition HEARTBEAT_TIMEOUT',
        'discard-filling',
        'dial standby',
      ]);
      expect(words(m.advance(300))).to.include('report-impossible HEARTBEAT_TIMEOUT');
    });

    it('when the primary was lost already: no failover, and said so', () => {
      const m = replicating();
      lose(m);
      expect(words(crash(m))).to.deep.equal([...LOST, 'transition the standby was lost']);
      expect(words(refuse(m, 'REFUSED'))).to.include('report-impossible LINK_CLOSED');
    });

    it('when the witness is being asked: no failover, and said so if it grants', () => {
      for (const granted of [true, false]) {
        const m = replicating();
        lose(m);
        refuse(m, 'REFUSED');
        crash(m);
        const effects = words(m.give({ kind: 'witness', granted }));
        if (granted) expect(effects).to.include('report-impossible LINK_CLOSED');
        else expect(effects).to.deep.equal(['transition the witness did not grant the lease']);
        expect(m.armed('redial')).to.be.a('number');
      }
    });

    it('after the primary took its leave: nothing to fail over to, and no failure', () => {
      const m = replicating();
      m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' });
      lose(m);
      expect(words(crash(m))).to.deep.equal([...LOST, 'transition the standby was lost']);
      m.advance(50);
      expect(m.effects.at(-1)).to.deep.include({ kind: 'dial', held: null });
      expect(words(refuse(m, 'REFUSED'))).to.deep.equal([]);
    });

    it('the older one, while a new one is filled: the filling goes on', () => {
      const m = replicating();
      lose(m);
      link(m, 'B', true);
      expect(words(crash(m))).to.deep.equal([...LOST, 'transition the standby was lost']);
      expect(secondaryLinkState(m.state)).to.equal('syncing');
      expect(words(acknowledge(m, 0, 'B'))[0]).to.equal('adopt');
    });

    it('the new one, while an older one is held: filled again, and the older one is what to fail over to', () => {
      const m = replicating();
      lose(m);
      link(m, 'B', true);
      m.give({ kind: 'filling-ended', reason: 'killed' });
      m.give({ kind: 'lost', streamUuid: 'B', code: 'STANDBY_LOST' });
      const effects = restored(m, 'B');
      expect(words(effects)).to.deep.equal(['discard-filling', 'dial standby']);
      expect(effects).to.deep.include({ kind: 'dial', dial: 3, role: 'standby', held: m.state.held });
      expect(refuse(m, 'REFUSED')).to.deep.include({
        kind: 'ask-witness',
        held: { streamUuid: 'A', epoch: 2 },
      });
    });
  });

  describe('the primary takes its leave', () => {
    it('its domain ended: ended here too, and never taken over', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'bye', streamUuid: 'A', reason: 'domain-ended' }))).to.deep.equal([
        'discard-held',
        'transition the domain shut down',
        'finished',
      ]);
      expect(lose(m)).to.deep.equal([]);
      expect(words(m.advance(10_000))).to.deep.equal([]);
      expect(m.state.role).to.equal('ended');
    });

    it('END came: the same', () => {
      const m = replicating();
      expect(words(m.give({ kind: 'ended', streamUuid: 'A' }))).to.include('finished');
      m.give({ kind: 'restored', streamUuid: 'A', consistent: true, epochsBack: 0, message: '', code: '' });
      expect(words(m.advance(10_000))).to.deep.equal([]);
    });

    it('its service stops: no failover, dialled again; a new instance of it makes what is held worthless', () => {
      const m = replicating();
      m.give({ kind: 'bye', streamUuid: 'A', reason: 'shutdown' });
      expect(lose(m)).to.deep.equal([{ kind: 'arm', timer: 'redial', delayMs: 50 }]);
      for (let i = 0; i < 20; i++) {
        expect(words(m.advance(2000))).to.deep.equal(['dial standby']);
        expect(words(refuse(m, 'REFUSED'))).to.deep.equal([]);
      }
      expect(m.state.held).not.to.equal(null);
      m.advance(2000);
      expect(words(refuse(m, 'UNKNOWN_STREAM'))).to.deep.equal(['discard-held']);
      expect(words(m.advance(2000))).to.deep.equal(['dial standby']);
      expect(m.effects.at(-1)).to.deep.include({ held: null });
    });
  });

  describe('active', () => {
    it('dials the old primary until it was told', () => {
      const m = active();
      refuse(m, 'UNREACHABLE');
      expect(words(m.advance(50))).to.deep.equal(['dial active']);
      refuse(m, 'HANDSHAKE_TIMEOUT');
      expect(words(m.advance(100))).to.deep.equal(['dial active']);
      refuse(m, 'FENCED');
      expect(words(m.advance(100_000))).to.deep.equal([]);
    });

    it('a welcome counts as told, too', () => {
      const m = active();
      expect(words(link(m, 'Z'))).to.deep.equal(['drop-link FENCED']);
      expect(words(m.advance(100_000))).to.deep.equal([]);
    });

    it('the domain ends by itself', () => {
      const m = active();
      expect(words(m.give({ kind: 'domain-shutdown' }))).to.deep.equal([
        'abort-dial',
        'discard-held',
        'transition the domain shut down',
        'finished',
      ]);
    });

    it('the domain ends while it is being started', () => {
      const m = replicating();
      lose(m);
      refuse(m, 'REFUSED');
      m.give({ kind: 'witness', granted: true });
      expect(words(m.give({ kind: 'domain-crashed', reason: 'x' }))).to.deep.equal([]);
      expect(words(m.give({ kind: 'started', epochsBack: 0 }))).to.include('transition the domain crashed');
      expect(m.state.role).to.equal('failed');
    });
  });

  describe('a domain that does not start', () => {
    function starting(): Machine {
      const m = replicating();
      lose(m);
      refuse(m, 'REFUSED');
      m.give({ kind: 'witness', granted: true });
      return m;
    }
    const failure = { kind: 'start-failed', code: 'BAD_CONTEXT', message: 'no', epochsBack: 0 } as const;

    it('is kept and tried again, later and later, while nobody answers in the primary’s place', () => {
      const m = starting();
      const pauses: (number | null)[] = [];
      for (let attempt = 0; attempt < 4; attempt++) {
        expect(words(m.give(failure))).to.include.members([
          'report-failed BAD_CONTEXT',
          'transition the domain did not start: BAD_CONTEXT',
        ]);
        expect(m.state.held).to.deep.equal({ streamUuid: 'A', epoch: 2 });
        pauses.push(m.armed('redial'));
        m.give({ kind: 'timer', timer: 'redial', lateMs: 0 });
        expect(words(refuse(m, 'REFUSED'))).to.include('ask-witness');
        expect(words(m.give({ kind: 'witness', granted: true })).join()).to.include('take-over');
      }
      expect(pauses).to.deep.equal([50, 100, 200, 400]);
      m.give({ kind: 'started', epochsBack: 1 });
      expect(m.state).to.deep.include({ role: 'active', held: { streamUuid: 'A', epoch: 1 } });
    });

    it('and whose primary answers after all: it is a standby again', () => {
      const m = starting();
      m.give(failure);
      m.give({ kind: 'timer', timer: 'redial', lateMs: 0 });
      expect(words(link(m, 'B'))).to.include('restore');
      expect(m.state.role).to.equal('standby');
    });

    it('because it is gone: failed, and said so', () => {
      expect(words(starting().give({ ...failure, code: 'DOMAIN_GONE' }))).to.deep.equal([
        'report-failed DOMAIN_GONE',
        'discard-held',
        'transition the domain did not start: DOMAIN_GONE',
        'finished',
      ]);
    });
  });

  it('a checkpoint that the hypervisor does not take: back to the one before, the reason told, filled again', () => {
    const m = replicating();
    const said = words(
      m.give({
        kind: 'restored',
        streamUuid: 'A',
        consistent: true,
        epochsBack: 2,
        code: 'BAD_CONTEXT',
        message: 'no such device',
      }),
    );
    expect(said).to.include('drop-link STATE_REFUSED');
    expect(said.join()).to.include('dial');
    expect(m.state.held).to.deep.equal({ streamUuid: 'A', epoch: 0 });
    expect(m.state.phase).to.equal('suspect');
  });

  it('a first checkpoint that the hypervisor does not take: nothing is held, filled again later and later', () => {
    const m = machine();
    const pauses: (number | null)[] = [];
    for (const streamUuid of ['A', 'B', 'C', 'D']) {
      link(m, streamUuid);
      const said = words(
        m.give({
          ...{ kind: 'restored', streamUuid, consistent: false, epochsBack: 0 },
          ...{ code: 'BAD_CONTEXT', message: 'no such device' },
        }),
      );
      expect(said).to.include('drop-link STATE_REFUSED');
      expect(m.state.held).to.equal(null);
      pauses.push(m.armed('redial'));
      if (m.armed('redial') !== null) m.give({ kind: 'timer', timer: 'redial', lateMs: 0 });
    }
    expect(pauses).to.deep.equal([null, 50, 100, 200]);
  });

  it('stop: bye, domains destroyed, and nothing after it', () => {
    const m = replicating();
    expect(words(m.give({ kind: 'stop' }))).to.deep.equal([
      'bye shutdown',
      'discard-held',
      'transition stopped',
    ]);
    expect(lose(m)).to.deep.equal([]);
    expect(words(m.advance(100_000))).to.deep.equal([]);
  });

  it('whatever happens in whatever order: no failover before a commit, one at most, every domain accounted for', () => {
    const uuid = fc.constantFrom('A', 'B', 'C');
    const code = fc.constantFrom(
      'REFUSED',
      'UNREACHABLE',
      'UNKNOWN_STREAM',
      'ALREADY_LINKED',
      'LINK_CLOSED',
      'FENCED',
    );
    // Events of the present dial and session are made likely, or random sequences would get nowhere.
    type Make = (m: Machine) => Parameters<Machine['give']>[0];
    const onward: Make = (m) => {
      const { session, phase, dial } = m.state;
      if (phase === 'deciding') return { kind: 'witness', granted: true };
      if (phase === 'starting') return { kind: 'started', epochsBack: 0 };
      if (phase === 'suspect' && dial !== 0) return { kind: 'dial-failed', dial, code: 'REFUSED' };
      if (phase === 'linked' && session) {
        return { kind: 'acknowledged', streamUuid: session.streamUuid, epoch: session.acknowledged + 1 };
      }
      if (session)
        return {
          kind: 'restored',
          streamUuid: session.streamUuid,
          consistent: true,
          epochsBack: 0,
          message: '',
          code: '',
        };
      if (dial !== 0) {
        const streamUuid = `S${m.state.dials}`;
        return { kind: 'dialled', dial, streamUuid, continuous: true, standstillMs: 0 };
      }
      return { kind: 'timer', timer: 'redial', lateMs: 0 };
    };
    const event: fc.Arbitrary<Make> = fc.oneof(
      { weight: 30, arbitrary: fc.constant(onward) },
      fc.tuple(fc.boolean(), fc.boolean()).map<Make>(([continuous, stale]) => (m) => ({
        kind: 'dialled',
        dial: stale ? m.state.dials - 1 : m.state.dial,
        streamUuid: `S${m.state.dials}`,
        continuous,
        standstillMs: 0,
      })),
      code.map<Make>((given) => (m) => ({ kind: 'dial-failed', dial: m.state.dial, code: given })),
      fc.tuple(fc.boolean(), uuid).map<Make>(([stale, other]) => (m) => ({
        kind: 'acknowledged',
        streamUuid: stale ? other : (m.state.session?.streamUuid ?? other),
        epoch: (m.state.session?.acknowledged ?? -1) + 1,
      })),
      code.map<Make>((given) => (m) => ({
        kind: 'lost',
        streamUuid: m.state.session?.streamUuid ?? 'A',
        code: given,
      })),
      fc.boolean().map<Make>((consistent) => (m) => ({
        kind: 'restored',
        streamUuid: m.state.session?.streamUuid ?? 'A',
        consistent,
        epochsBack: 0,
        message: '',
        code: '',
      })),
      fc
        .constantFrom('shutdown' as const, 'refused' as const, 'domain-ended' as const)
        .map<Make>((reason) => (m) => ({
          kind: 'bye',
          streamUuid: m.state.session?.streamUuid ?? 'A',
          reason,
        })),
      fc.constantFrom(...timers).map<Make>((timer) => () => ({ kind: 'timer', timer, lateMs: 0 })),
      fc.boolean().map<Make>((granted) => () => ({ kind: 'witness', granted })),
      fc
        .constantFrom<ReturnType<Make>>(
          { kind: 'started', epochsBack: 0 },
          { kind: 'start-failed', code: 'x', message: 'x', epochsBack: 0 },
          { kind: 'start-failed', code: 'DOMAIN_GONE', message: 'x', epochsBack: 0 },
          { kind: 'domain-shutdown' },
          { kind: 'domain-crashed', reason: 'x' },
          { kind: 'filling-ended', reason: 'x' },
          { kind: 'domain-failed', code: 'x' },
        )
        .map<Make>((given) => () => given),
      { weight: 1, arbitrary: fc.constant<Make>(() => ({ kind: 'stop' })) },
    );
    let failovers = 0;
    let losses = 0;
    let impossibles = 0;
    fc.assert(
      fc.property(fc.array(event, { maxLength: 60 }), (events) => {
        const m = machine();
        // What the runner would own.
        let held = false;
        let filling = false;
        let takeovers = 0;
        let failedStarts = 0;
        let impossible = 0;
        // A stream whose domain has ended: nothing of it is held again.
        const spoilt = new Set<string>();
        let finished = 0;
        for (const make of events) {
          const given = make(m);
          const before = m.state;
          const endsFilling = given.kind === 'filling-ended' && (before.session?.acknowledged ?? 0) < 0;
          if (endsFilling && before.session) spoilt.add(before.session.streamUuid);
          if (given.kind === 'start-failed' && before.phase === 'starting') failedStarts++;
          for (const effect of m.give(given)) {
            if (effect.kind === 'restore') {
              expect(filling, 'one domain is filled at a time').to.equal(false);
              filling = true;
            } else if (effect.kind === 'adopt') {
              expect(filling).to.equal(true);
              filling = false;
              held = true;
            } else if (effect.kind === 'discard-filling') {
              filling = false;
            } else if (effect.kind === 'discard-held') {
              expect(held).to.equal(true);
              held = false;
            } else if (effect.kind === 'standby-lost') {
              losses++;
              const lost = effect.was === 'held' ? before.held : before.session;
              if (lost) spoilt.add(lost.streamUuid);
            } else if (effect.kind === 'report-impossible') {
              impossible++;
              expect(held).to.equal(false);
              expect(spoilt.has(effect.gone.streamUuid)).to.equal(true);
            } else if (effect.kind === 'ask-witness') {
              expect(held).to.equal(true);
              expect(m.state.session, 'the restorer is done').to.equal(null);
            } else if (effect.kind === 'take-over') {
              takeovers++;
              expect(held, 'never fails over before a commit').to.equal(true);
              expect(filling).to.equal(false);
              expect(before.phase).to.equal('deciding');
            } else if (effect.kind === 'dial') {
              expect(effect.role === 'active').to.equal(m.state.role === 'active');
              expect(m.state.session).to.equal(null);
            } else if (effect.kind === 'finished') {
              finished++;
            }
          }
          expect(held).to.equal(m.state.held !== null);
          expect(spoilt.has(m.state.held?.streamUuid ?? ''), 'held, and dead').to.equal(false);
          if (m.state.phase === 'suspect') {
            const { session, dial } = m.state;
            const waits = m.armed('redial') ?? m.armed('reconnect');
            expect(session !== null || dial !== 0 || waits !== null, 'goes on by itself').to.equal(true);
          }
        }
        impossibles += impossible;
        failovers += takeovers;
        expect(takeovers, 'again only after one that failed').to.be.at.most(1 + failedStarts);
        expect(finished).to.be.at.most(1);
        // The restorer ends some day, and then nothing may be left over.
        m.give({ kind: 'stop' });
        for (const effect of m.give({
          kind: 'restored',
          streamUuid: m.state.session?.streamUuid ?? 'A',
          consistent: true,
          epochsBack: 0,
          message: '',
          code: '',
        })) {
          if (effect.kind === 'discard-filling') filling = false;
        }
        expect(filling).to.equal(false);
        expect(m.state.held).to.equal(null);
      }),
      { numRuns: 3000 },
    );
    expect(failovers, 'the sequences get somewhere').to.be.greaterThan(50);
    expect(losses, 'standbys are lost').to.be.greaterThan(50);
    expect(impossibles, 'failovers fail').to.be.greaterThan(0);
  });
});
