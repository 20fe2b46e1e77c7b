// Which hello is welcome: what must be the same, and how a difference is told.

import { expect } from 'chai';
import { ChannelError, PROTOCOL_VERSION, type Hello, type SharedPoint } from '../../src/channel/contract.js';
import type { DomainInfo } from '../../src/hypervisor/port.js';
import { mandateOf, wanted, type Mandate, type Pairing } from '../../src/failover/mandate.js';
import type { Register } from '../../src/failover/register.js';
import { birth, type LifeState } from '../../src/primary/life-state.js';
import { judgeHello } from '../../src/primary/welcome.js';
import { primaryDomain } from '../support/domains.js';

const info: DomainInfo = {
  name: 'web',
  type: 2,
  p2mSize: 4096,
  state: 'running',
  hypervisor: 'qemu',
  versionMajor: 7,
  versionMinor: 2,
  inventory: { machine: 'pc-q35-7.2', devices: 'isa-serial\nvirtio-net-pci card-lan addr 01.0' },
};
const hello: Hello = {
  domain: 'web',
  protocolVersion: PROTOCOL_VERSION,
  software: 'test',
  hypervisor: 'qemu',
  domainType: 2,
  p2mSize: 4096,
  inventory: info.inventory ?? {},
  host: 'south',
  streamUuid: null,
  epoch: null,
  pairing: null,
  shared: null,
  images: null,
  blankDisks: [],
};

describe('primary/welcome', () => {
  const config = primaryDomain();
  const alone: Register = {
    ...{ generation: 4, mode: 'alone', owner: 'north', standby: null, stream: null, token: 't' },
  };
  const pairing: Pairing = { standby: 'south', stream: 'A' };
  const paired: Register = { ...alone, mode: 'paired', ...pairing };
  const settings = { startWithStandby: false, stallMs: 500, standstill: null, handOverTimeoutMs: 5000 };
  const state = birth(settings, 0, mandateOf('north', 'n', paired));
  const judge = (
    changes: Partial<Hello>,
    here: DomainInfo = info,
    life = state,
    has: (point: SharedPoint | null) => boolean = () => false,
  ) => judgeHello({ ...hello, ...changes }, config, here, life, 'north', { has });
  const refusal = (changes: Partial<Hello>, here?: DomainInfo, life?: LifeState): ChannelError => {
    try {
      judge(changes, here, life);
    } catch (error) {
      if (error instanceof ChannelError) return error;
      throw error;
    }
    throw new Error('it was welcome');
  };

  it('a stream goes on from what both have, but for a PV domain', () => {
    const shared: SharedPoint = { streamUuid: 'A', epoch: 7, digest: 5n };
    const has = (point: SharedPoint | null) => point === shared;
    const resumes = (point: SharedPoint | null, here = info) =>
      judge({ shared: point, domainType: here.type }, here, state, has).resumes;
    expect(resumes(shared)).to.equal(true);
    expect(resumes({ ...shared })).to.equal(false);
    expect(resumes(null)).to.equal(false);
    expect(resumes(shared, { ...info, type: 1 })).to.equal(false);
  });

  it('the same is welcome, and so is one of a hypervisor that names no more', () => {
    const { inventory, ...plain } = info;
    expect(inventory).to.not.equal(undefined);
    expect(judge({ inventory: {} }, plain)).to.include({ windowEpochs: 1 });
  });

  it('a difference is told in words and in facts, of both sides', () => {
    const error = refusal({ p2mSize: 8192, inventory: { ...hello.inventory, machine: 'pc-i440fx-7.2' } });
    expect(error.code).to.equal('DOMAIN_MISMATCH');
    expect(error.message).to.equal(
      'the standby does not fit web: memory: 16 MiB on the primary, 32 MiB on the secondary; ' +
        'machine: pc-q35-7.2 on the primary, pc-i440fx-7.2 on the secondary',
    );
    expect(error.facts).to.deep.equal({
      memory: '16 MiB',
      'memory offered': '32 MiB',
      machine: 'pc-q35-7.2',
      'machine offered': 'pc-i440fx-7.2',
    });
    expect(refusal({ hypervisor: 'embedded' }).message).to.include(
      'hypervisor: qemu on the primary, embedded on the secondary',
    );
    expect(refusal({ domainType: 1 }).message).to.include('type: x86 HVM (2) on the primary, x86 PV (1)');
    expect(refusal({ p2mSize: 4097 }).message).to.include('memory: 16 MiB on the primary, 4097 pages');
    expect(refusal({ inventory: {} }).message).to.include('machine: pc-q35-7.2 on the primary, none');
  });

  describe('by the register', () => {
    /** `asks`: what is being written; left out: nothing is. */
    const owned = (register: Register, asks?: Pairing | null): Mandate => {
      const mandate = mandateOf('north', 'n', register);
      return asks === undefined ? mandate : wanted(mandate, asks)[0];
    };
    /** B went on where A was, and epoch 5 of it is the last that was let out. */
    const lifeOf = (mandate: Mandate): LifeState => ({
      ...{ ...state, mandate },
      letOut: { released: { streamUuid: 'B', epoch: 5 }, streamsSince: ['C'] },
    });
    const held = (changes: Partial<Hello> = {}): Partial<Hello> => ({
      ...{ streamUuid: 'B', epoch: 5, pairing: 'A' },
      ...changes,
    });
    const welcomed = (changes: Partial<Hello>, mandate: Mandate) => {
      const { streamUuid, continuous, pairing: by } = judge(held(changes), info, lifeOf(mandate));
      expect(by, 'the pairing').to.equal(continuous ? 'A' : streamUuid);
      return continuous;
    };

    it('a standby goes on from what it holds if it is paired by that; the pairing stays the same', () => {
      const mandate = owned(paired);
      expect(welcomed({}, mandate)).to.equal(true);
      expect(welcomed({ streamUuid: 'C', epoch: 0 }, mandate)).to.equal(true);
      // More was let out since; another pairing; a stream that nobody here knows; nothing.
      expect(welcomed({ epoch: 4 }, mandate)).to.equal(false);
      expect(welcomed({ pairing: 'B' }, mandate)).to.equal(false);
      expect(welcomed({ streamUuid: 'X' }, mandate)).to.equal(false);
      expect(welcomed({ pairing: null }, mandate)).to.equal(false);
      expect(welcomed({ streamUuid: null, epoch: null, pairing: null }, mandate)).to.equal(false);
    });

    it('… or will be, or was when the register was asked last: the answer is not known', () => {
      expect(welcomed({}, owned(alone, pairing)), 'paired is written').to.equal(true);
      expect(welcomed({}, owned(paired, null)), 'alone is written').to.equal(true);
    });

    it('… not where nobody is: all has been let out since', () => {
      expect(welcomed({}, owned(alone))).to.equal(false);
    });

    it('… nor what another host holds by it', () => {
      expect(welcomed({ host: 'east' }, owned(alone))).to.equal(false);
    });

    it('another host is ALREADY_LINKED while one is paired, or may be', () => {
      for (const mandate of [owned(paired), owned(paired, null), owned(alone, pairing)]) {
        const error = refusal({ host: 'east' }, info, lifeOf(mandate));
        expect(error.code).to.equal('ALREADY_LINKED');
        expect(error.message).to.equal('south protects web, or may still');
        expect(error.facts).to.deep.equal({ domain: 'web', standby: 'south' });
        // The one that is named may have come back with nothing.
        expect(judge({ host: 'south' }, info, lifeOf(mandate)).continuous).to.equal(false);
      }
      expect(judge({ host: 'east' }, info, lifeOf(owned(alone))).host).to.equal('north');
    });
  });

  it('what every domain has cannot be said otherwise by a fact of that name', () => {
    const error = refusal({
      p2mSize: 1,
      inventory: { ...hello.inventory, memory: '16 MiB', type: 'x', hypervisor: 'x' },
    });
    expect(error.facts).to.deep.equal({ memory: '16 MiB', 'memory offered': '1 pages' });
  });
});
