// What came of it when a file was opened or read anew, for whoever has asked for it.

export interface Reloaded {
  readonly file: string;
  /** Why it stays as it was. */
  readonly error: Error | null;
}
