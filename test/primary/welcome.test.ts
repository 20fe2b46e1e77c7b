// Which hello is welcome: what must be the same, and how a difference is told.

import { expect } from 'chai';
import { ChannelError, PROTOCOL_VERSION, type Hello } from '../../src/channel/contract.js';
import { parsePrimaryConfig } from '../../src/config/load.js';
import type { DomainInfo } from '../../src/hypervisor/port.js';
import { birth, type LifeState } from '../../src/primary/life-state.js';
import { judgeClaim, judgeHello, newInstance } from '../../src/primary/welcome.js';

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
  role: 'standby',
  streamUuid: null,
  epoch: null,
  pairing: null,
};

describe('primary/welcome', () => {
  const [config] = parsePrimaryConfig({
    domains: [{ name: 'web', hypervisor: { kind: 'embedded' } }],
  }).domains;
  const state = birth(
    {
      whenUnprotected: 'hold',
      startWithSecondary: false,
      stallMs: 500,
      standstill: null,
    },
    0,
  );
  const judge = (changes: Partial<Hello>, here: DomainInfo = info) => {
    if (!config) throw new Error('no domain');
    return judgeHello({ ...hello, ...changes }, config, here, state, newInstance(), 'north');
  };
  const refusal = (changes: Partial<Hello>, here?: DomainInfo): ChannelError => {
    try {
      judge(changes, here);
    } catch (error) {
      if (error instanceof ChannelError) return error;
      throw error;
    }
    throw new Error('it was welcome');
  };

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

  it('who says that it runs the domain is believed with what was sent to it, and with nothing else', () => {
    const linked: LifeState = {
      ...state,
      stream: {
        ...{ streamUuid: 'C', captured: 4, acknowledged: 3, staleEpoch: -1, holding: true },
        ...{ pairing: { standby: 'south', stream: 'C' }, stalled: false, heardAtMs: null, begun: true },
      },
      sent: [
        { streamUuid: 'A', captured: 7 },
        { streamUuid: 'B', captured: 0 },
      ],
    };
    const claim = (streamUuid: string | null, epoch: number | null, here = linked): string => {
      try {
        judgeClaim({ ...hello, role: 'active', streamUuid, epoch }, 'web', here);
        return 'fenced';
      } catch (error) {
        if (!(error instanceof ChannelError)) throw error;
        expect(error.facts).to.deep.equal({ domain: 'web', streamUuid, epoch });
        return error.code;
      }
    };
    // The last acknowledgement, one that has not arrived, an earlier one, one of a stream before.
    for (const [streamUuid, epoch] of [
      ['C', 3],
      ['C', 4],
      ['C', 0],
      ['A', 7],
      ['B', 0],
    ] as const) {
      expect(claim(streamUuid, epoch), `${streamUuid} ${epoch}`).to.equal('fenced');
    }
    const false_: [string | null, number | null][] = [
      ['C', 5],
      ['A', 8],
      ['D', 0],
      ['', 0],
      ['C', null],
      [null, 0],
      [null, null],
    ];
    for (const [streamUuid, epoch] of false_) {
      expect(claim(streamUuid, epoch), `${streamUuid} ${epoch}`).to.equal('UNKNOWN_STREAM');
    }
    expect(claim('A', 0, state)).to.equal('UNKNOWN_STREAM');
  });

  it('what every domain has cannot be said otherwise by a fact of that name', () => {
    const error = refusal({
      p2mSize: 1,
      inventory: { ...hello.inventory, memory: '16 MiB', type: 'x', hypervisor: 'x' },
    });
    expect(error.facts).to.deep.equal({ memory: '16 MiB', 'memory offered': '1 pages' });
  });
});
