// What a failing program comes back as: the kind of error, the place in this file, the cause, and a hint.
function loadSettings(): unknown {
  try {
    return JSON.parse('{"port": }');
  } catch (error) {
    throw new Error("the settings cannot be read", { cause: error });
  }
}

console.log("output before an error is kept");
loadSettings();
