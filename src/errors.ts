// One shape for every error that Romulus raises: a code that programs test, a sentence that people read, and the
// facts of the case (record type, offset, pfn, …). Each room of the house narrows the code to its own union.

export type Fact = string | number | bigint | boolean | null | undefined;
export type Facts = Readonly<Record<string, Fact>>;

export class RomulusError<Code extends string = string> extends Error {
  readonly code: Code;
  readonly facts: Facts;
  /** What failed afterwards, while cleaning up because of this error. */
  readonly suppressed: Error[] = [];

  constructor(code: Code, message: string, facts: Facts = {}, options?: ErrorOptions) {
    super(message, options);
    this.name = new.target.name;
    this.code = code;
    this.facts = facts;
  }
}

/** The error of a value that was caught: what is no Error is wrapped, nothing is lost. */
export function asError(thrown: unknown): Error {
  return thrown instanceof Error ? thrown : new Error(String(thrown));
}

/** The code of an error if it has one (ours and Node's system errors do), else its name. */
export function codeOf(error: unknown): string {
  if (error instanceof Error) {
    const code: unknown = (error as { code?: unknown }).code;
    return typeof code === 'string' ? code : error.name;
  }
  return 'UNKNOWN';
}

/** Our errors as they are; what fails otherwise (a read error of the disk, say) is given a code. */
export function romulusError(thrown: unknown, coded: (cause: Error) => RomulusError): Error {
  const error = asError(thrown);
  return error instanceof RomulusError ? error : coded(error);
}
